//! Keeps the house tidy: what a reviewer would otherwise have to say again and again.
//!
//! Each rule has a test of its own that shows what it finds.

use std::{fs, path::Path};

use crate::source::{Kind, SourceFile, Token, rust_files};

const COLUMNS_MAX: usize = 110;
const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 600;

/// Functions that are too long and may not become more: (file, function). Empty is the aim.
const LONG_FUNCTIONS: [(&str, &str); 0] = [];
/// Tests that do not run by themselves: (file, function, why).
const IGNORED_TESTS: [(&str, &str, &str); 1] = [(
    "src/disk/tests/crash.rs",
    "child",
    "the part of a test that runs in a process of its own and dies there",
)];
/// Files that are too long and may not become more. Empty is the aim.
const LONG_FILES: [&str; 0] = [];

/// What is wrong where.
#[derive(Debug, PartialEq)]
struct Finding {
    line: usize,
    text: String,
}

fn finding(line: usize, text: impl Into<String>) -> Finding {
    Finding { line, text: text.into() }
}

/// Runs one rule over all files and fails with everything that it finds.
fn hold(rule: fn(&SourceFile) -> Vec<Finding>) {
    let files = rust_files();
    let found: Vec<_> = files
        .iter()
        .flat_map(|file| rule(file).into_iter().map(|f| format!("{}:{}: {}", file.path, f.line, f.text)))
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// How many findings a rule has in this text.
fn count(rule: fn(&SourceFile) -> Vec<Finding>, path: &str, text: &str) -> usize {
    rule(&SourceFile::new(path, text)).len()
}

fn is_source(file: &SourceFile) -> bool {
    file.path.starts_with("src/")
}

/// Where these words and signs stand one after the other.
fn places<'a>(code: &'a [&'a Token], pattern: &'a [&'a str]) -> impl Iterator<Item = &'a Token> + 'a {
    let fits = move |window: &[&Token]| window.iter().zip(pattern).all(|(token, text)| token.is(text));
    code.windows(pattern.len()).filter(move |window| fits(window)).map(|window| window[0])
}

// ---- head docs ----

fn head_doc(file: &SourceFile) -> Vec<Finding> {
    let has = file.tokens.first().is_some_and(|token| token.text.starts_with("//! "));
    if has { Vec::new() } else { vec![finding(1, "does not begin with a head doc (`//! `)")] }
}

#[test]
fn every_file_begins_with_a_head_doc() {
    hold(head_doc);
    assert_eq!(count(head_doc, "src/x.rs", "use a;\n//! late\n"), 1);
    assert_eq!(count(head_doc, "src/x.rs", ""), 1);
    assert_eq!(count(head_doc, "src/x.rs", "\n//! What it owns.\nuse a;"), 0);
}

// ---- channels ----

/// In the program itself; a test that collects what it started may wait for all of it.
fn unbounded_channel(file: &SourceFile) -> Vec<Finding> {
    let mut code = file.code();
    code.retain(|token| !token.in_test);
    let mut found = Vec::new();
    for pattern in [&["unbounded_channel"][..], &["mpsc", "::", "unbounded"], &["UnboundedSender"]] {
        found.extend(places(&code, pattern).map(|token| finding(token.line, "an unbounded channel")));
    }
    for (at, three) in code.windows(3).enumerate() {
        let names = three[0].is("mpsc") && three[1].is("::") && three[2].is("channel");
        if names && calls_without_argument(&code[at + 3..]) {
            found.push(finding(three[0].line, "an unbounded channel of the standard library"));
        }
    }
    found
}

/// Whether what follows is `()`, perhaps behind `::<…>`; tokio's bounded channel takes a number.
fn calls_without_argument(code: &[&Token]) -> bool {
    let is_call = code.first().is_some_and(|token| token.is("(") || token.is("::"));
    let open = code.iter().position(|token| token.is("("));
    is_call && open.and_then(|open| code.get(open + 1)).is_some_and(|token| token.is(")"))
}

#[test]
fn no_channel_is_unbounded() {
    hold(unbounded_channel);
    let wrong = [
        "let (a, b) = mpsc::unbounded_channel();",
        "use tokio::sync::mpsc::unbounded_channel;",
        "let (a, b) = futures::channel::mpsc::unbounded();",
        "let (a, b) = std::sync::mpsc::channel();",
        "let (a, b) = mpsc::channel::<u8>();",
    ];
    for text in wrong {
        assert_eq!(count(unbounded_channel, "src/x.rs", text), 1, "{text}");
    }
    assert_eq!(count(unbounded_channel, "src/x.rs", "mpsc::channel(8); mpsc::channel::<u8>(8);"), 0);
    assert_eq!(count(unbounded_channel, "src/x.rs", "oneshot::channel(); sync_channel(3)"), 0);
}

// ---- panics ----

fn unwraps(file: &SourceFile) -> Vec<Finding> {
    let code = file.code();
    let mut found = Vec::new();
    for (at, token) in code.iter().enumerate() {
        if token.in_test || at == 0 || !(code[at - 1].is(".") || code[at - 1].is("::")) {
            continue;
        }
        if ["unwrap", "unwrap_err", "unwrap_unchecked"].iter().any(|name| token.is(name)) {
            found.push(finding(token.line, format!("{}: say with `expect` why it cannot fail", token.text)));
        }
    }
    for window in code.windows(3) {
        let is_expect = window[0].is("expect") || window[0].is("expect_err");
        if is_expect && window[1].is("(") && window[2].kind == Kind::Text && window[2].text.trim().len() < 3 {
            found.push(finding(window[0].line, "`expect` without a reason"));
        }
    }
    found
}

#[test]
fn nothing_is_unwrapped_without_a_reason() {
    hold(unwraps);
    assert_eq!(count(unwraps, "src/x.rs", "fn f() { a.unwrap(); b\n.unwrap(); c.map(Option::unwrap); }"), 3);
    assert_eq!(count(unwraps, "src/x.rs", "a.expect(\"\"); a.expect(\" \");"), 2);
    let right = "a.unwrap_or(1); a.expect(\"it was just put there\"); \"x.unwrap()\"; // a.unwrap()\n\
                 #[cfg(test)] mod tests { fn f() { a.unwrap() } }";
    assert_eq!(count(unwraps, "src/x.rs", right), 0);
}

// ---- left-overs ----

fn left_overs(file: &SourceFile) -> Vec<Finding> {
    let code = file.code();
    let mut found = Vec::new();
    for name in ["todo", "unimplemented", "dbg"] {
        found.extend(
            places(&code, &[name, "!"]).map(|token| finding(token.line, format!("a left-over {name}!"))),
        );
    }
    let marks = ["FIXME", "XXX", "TODO", "HACK"];
    for comment in file.tokens.iter().filter(|token| token.kind == Kind::Comment) {
        found.extend(
            marks
                .iter()
                .filter(|mark| comment.text.contains(*mark))
                .map(|mark| finding(comment.line, format!("a note to oneself: {mark}"))),
        );
    }
    found
}

#[test]
fn nothing_is_left_over() {
    hold(left_overs);
    let mark = ["FIX", "ME"].concat();
    assert_eq!(count(left_overs, "src/x.rs", &format!("todo!(); dbg!(x); unimplemented!() // {mark}")), 4);
    assert_eq!(count(left_overs, "src/x.rs", &format!("#[cfg(test)] mod t {{ /* {mark} */ }}")), 1);
    assert_eq!(count(left_overs, "src/x.rs", "let todo = 1; \"todo!()\"; // what is to be done\n"), 0);
}

// ---- ignored tests ----

fn ignored(file: &SourceFile) -> Vec<Finding> {
    let code = file.code();
    let mut found = Vec::new();
    for (at, three) in code.windows(3).enumerate() {
        if !(three[0].is("#") && three[1].is("[") && three[2].is("ignore")) {
            continue;
        }
        let name = code[at..].windows(2).find(|two| two[0].is("fn")).map_or("", |two| &two[1].text);
        if !IGNORED_TESTS.iter().any(|(path, test, _)| *path == file.path && *test == name) {
            found.push(finding(three[0].line, format!("{name} is a test that does not run")));
        }
    }
    found
}

#[test]
fn no_test_is_ignored() {
    hold(ignored);
    assert_eq!(count(ignored, "tests/it/x.rs", "#[test] #[ignore = \"slow\"] fn f() {}"), 1);
    let (path, name, reason) = IGNORED_TESTS[0];
    assert!(reason.len() > 10);
    assert_eq!(count(ignored, path, &format!("#[ignore] fn {name}() {{}} #[ignore] fn other() {{}}")), 1);
    assert_eq!(count(ignored, "tests/it/x.rs", "#[test] fn f() { ignore(\"#[ignore]\") }"), 0);
}

// ---- width ----

fn long_lines(file: &SourceFile) -> Vec<Finding> {
    let excepted = |number: usize| {
        file.tokens.iter().any(|token| {
            let last = token.line + token.text.matches('\n').count();
            token.kind == Kind::Text && token.text.len() > 20 && (token.line..=last).contains(&number)
        })
    };
    let lines = file.text.lines().enumerate().map(|(at, line)| (at + 1, line.chars().count()));
    let wide = lines.filter(|(number, columns)| *columns > COLUMNS_MAX && !excepted(*number));
    wide.map(|(number, columns)| finding(number, format!("{columns} columns"))).collect()
}

#[test]
fn lines_fit() {
    hold(long_lines);
    assert_eq!(count(long_lines, "src/x.rs", &format!("// {}\n{}", "x".repeat(108), "ü".repeat(110))), 1);
    assert_eq!(count(long_lines, "src/x.rs", &format!("f(\"{}\")", "x".repeat(200))), 0);
}

// ---- length of functions ----

fn functions(file: &SourceFile) -> Vec<(String, usize, usize)> {
    let code = file.code();
    let mut found = Vec::new();
    for at in 0..code.len().saturating_sub(1) {
        let begins = code[at].is("fn") && code[at + 1].kind == Kind::Word && !code[at].in_test;
        if let Some(last) = begins.then(|| last_line(&code[at..])).flatten() {
            found.push((code[at + 1].text.clone(), code[at].line, last + 1 - code[at].line));
        }
    }
    found
}

/// Where the body of the function ends that begins here; none if it has no body.
fn last_line(code: &[&Token]) -> Option<usize> {
    let (mut round, mut curly) = (0i32, 0i32);
    for token in code {
        match token.text.as_str() {
            _ if token.kind != Kind::Sign => {}
            "(" | "[" => round += 1,
            ")" | "]" => round -= 1,
            ";" if round == 0 && curly == 0 => return None,
            "{" => curly += 1,
            "}" => {
                curly -= 1;
                if curly == 0 && round == 0 {
                    return Some(token.line);
                }
            }
            _ => {}
        }
    }
    None
}

fn long_functions(file: &SourceFile) -> Vec<Finding> {
    let excepted = |name: &str| LONG_FUNCTIONS.contains(&(file.path.as_str(), name));
    let long = functions(file).into_iter().filter(|(_, _, lines)| *lines > FUNCTION_LINES_MAX);
    long.filter(|(name, _, _)| !excepted(name))
        .map(|(name, line, lines)| finding(line, format!("{name} has {lines} lines")))
        .collect()
}

#[test]
fn functions_are_short() {
    hold(long_functions);
    let long = format!("fn f(a: [u8; 3]) -> X {{ if a {{\n{} }} }}", "g();\n".repeat(70));
    assert_eq!(count(long_functions, "src/x.rs", &long), 1);
    assert_eq!(count(long_functions, "src/x.rs", &format!("#[cfg(test)] mod t {{ {long} }}")), 0);
    let short = format!("fn f();\n{}fn g() {{}}", "\n".repeat(99));
    assert_eq!(count(long_functions, "src/x.rs", &short), 0);
}

// ---- length of files ----

/// Lines of a file without those that only tests are built from.
fn own_lines(file: &SourceFile) -> usize {
    let mut in_test = vec![false; file.text.lines().count() + 2];
    let mut first = None;
    for token in &file.tokens {
        match (token.in_test, first) {
            (true, None) => first = Some(token.line),
            (true, Some(_)) => {}
            (false, _) => first = None,
        }
        if let Some(first) = first {
            let last = (token.line + token.text.matches('\n').count()).min(in_test.len() - 1);
            in_test[first..=last].fill(true);
        }
    }
    file.text.lines().count() - in_test.iter().filter(|is| **is).count()
}

fn long_file(file: &SourceFile) -> Vec<Finding> {
    let lines = own_lines(file);
    if lines <= FILE_LINES_MAX || !is_source(file) || LONG_FILES.contains(&file.path.as_str()) {
        return Vec::new();
    }
    vec![finding(1, format!("{lines} lines without tests"))]
}

#[test]
fn files_are_short() {
    hold(long_file);
    let long = "fn f() {}\n".repeat(601);
    assert_eq!(count(long_file, "src/x.rs", &long), 1);
    let tests = format!("#[cfg(test)]\nmod t {{\n{long}}}\n{}", "fn f() {}\n".repeat(599));
    assert_eq!(count(long_file, "src/x.rs", &tests), 0);
}

#[test]
fn exceptions_for_length_are_still_needed() {
    let files = rust_files();
    let file = |path: &str| files.iter().find(|file| file.path == path).expect("an excepted file is there");
    for (path, name) in LONG_FUNCTIONS {
        let long = |(own, _, lines): &(String, usize, usize)| own == name && *lines > FUNCTION_LINES_MAX;
        assert!(functions(file(path)).iter().any(long), "{path}: {name} is short now");
    }
    for path in LONG_FILES {
        assert!(own_lines(file(path)) > FILE_LINES_MAX, "{path} is short now");
    }
}

// ---- docs ----

const ITEMS: [&str; 8] = ["fn", "struct", "enum", "trait", "type", "const", "static", "union"];
const BEFORE_ITEMS: [&str; 4] = ["async", "unsafe", "extern", "const"];

/// `pub` items without a doc comment; a module has its head doc, and a re-export the doc of what it names.
fn missing_docs(file: &SourceFile) -> Vec<Finding> {
    if !is_source(file) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (at, token) in file.tokens.iter().enumerate() {
        if !token.is("pub") || token.in_test {
            continue;
        }
        let mut rest = file.tokens[at + 1..].iter().filter(|token| token.kind != Kind::Comment);
        let mut next = rest.next();
        let mut is_const = false;
        while let Some(word) = next.filter(|word| BEFORE_ITEMS.iter().any(|before| word.is(before))) {
            is_const |= word.is("const");
            next = rest.next();
        }
        let Some(next) = next else { continue };
        let is_item = is_const || ITEMS.iter().any(|item| next.is(item));
        if is_item && !has_doc(&file.tokens[..at]) {
            found.push(finding(token.line, "a public item without a doc comment"));
        }
    }
    found
}

/// Whether a doc comment, or a macro's place for one, stands before this; attributes may be between.
fn has_doc(before: &[Token]) -> bool {
    let mut depth = 0usize;
    for token in before.iter().rev() {
        match token.kind {
            Kind::Comment
                if depth == 0 && (token.text.starts_with("///") || token.text.starts_with("/**")) =>
            {
                return true;
            }
            Kind::Comment => {}
            _ if token.is("]") => depth += 1,
            _ if token.is("[") && depth > 0 => depth -= 1,
            _ if depth > 0 || token.is("#") => {}
            // `$(#[$doc:meta])*` of a macro.
            _ => return token.is("*"),
        }
    }
    false
}

#[test]
fn public_items_are_explained() {
    hold(missing_docs);
    let wrong = "pub fn a() {} pub struct B; #[derive(C)] pub enum D {} pub const E: u8 = 1; \
                 pub async fn g() {} pub const fn h() {}";
    assert_eq!(count(missing_docs, "src/x.rs", wrong), 6);
    let right = "/// A.\npub fn a() {}\n/// B.\n#[derive(X)]\n#[y(z = \"]\")]\npub struct B { pub c: u8 }\n\
                 pub mod m; pub use x::Y; pub(crate) fn z() {} /// E\n// why\npub const fn e() {}";
    assert_eq!(count(missing_docs, "src/x.rs", right), 0);
}

// ---- this machine ----

/// Folders that exist on some machine only; put together here so that this file is clean itself.
fn foreign_paths() -> Vec<String> {
    [["/wo", "rk/"], ["/tmp", "/wt"], ["/ro", "ot/"]].iter().map(|halves| halves.concat()).collect()
}

fn machine_paths(file: &SourceFile) -> Vec<Finding> {
    let paths = foreign_paths();
    let names = |line: &str| {
        paths.iter().any(|path| {
            line.match_indices(path.as_str()).any(|(at, _)| {
                // `src/` and the like in front make it a path of the repository.
                !line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '~' | '}' | '>'))
            })
        })
    };
    let lines = file.text.lines().enumerate().filter(|(_, line)| names(line));
    lines.map(|(at, _)| finding(at + 1, "a path of somebody's machine")).collect()
}

#[test]
fn no_path_of_a_machine_is_left() {
    hold(machine_paths);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in
        ["README.md", "CHANGELOG.md", "Cargo.toml", "clippy.toml", "deny.toml", ".ci/run", ".gitignore"]
    {
        let Ok(text) = fs::read_to_string(root.join(name)) else { continue };
        let found = machine_paths(&SourceFile { path: name.into(), text, tokens: Vec::new() });
        assert!(found.is_empty(), "{name}: {found:?}");
    }
    for path in foreign_paths() {
        assert_eq!(count(machine_paths, "src/x.rs", &format!("a\nlet p = \"{path}x\";")), 1);
        assert_eq!(count(machine_paths, "src/x.rs", &format!("src{path}x")), 0);
    }
}
