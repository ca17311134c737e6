//! The crate's own source as tokens, for the tests that keep its order.
//!
//! Enough of Rust's lexical rules to tell code from comments and strings; it understands no types.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One file of the repository.
pub struct SourceFile {
    /// From the repository's root, with `/`.
    pub path: String,
    pub text: String,
    pub tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    pub text: String,
    /// From 1: where it begins.
    pub line: usize,
    /// Inside of code that only tests are built from.
    pub in_test: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Word,
    /// One character, but `::` is one token.
    Sign,
    /// The text between the quotes.
    Text,
    /// With its slashes.
    Comment,
    /// Lifetimes, characters and numbers.
    Other,
}

impl SourceFile {
    pub fn new(path: &str, text: &str) -> Self {
        let mut tokens = lex(text);
        mark_tests(&mut tokens);
        if is_test_path(path) {
            tokens.iter_mut().for_each(|token| token.in_test = true);
        }
        Self { path: path.into(), text: text.into(), tokens }
    }

    /// Without comments.
    pub fn code(&self) -> Vec<&Token> {
        self.tokens.iter().filter(|token| token.kind != Kind::Comment).collect()
    }
}

impl Token {
    pub fn is(&self, text: &str) -> bool {
        matches!(self.kind, Kind::Word | Kind::Sign) && self.text == text
    }
}

/// Every Rust file under `src` and `tests`, by path.
pub fn rust_files() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for folder in ["src", "tests"] {
        collect(&root.join(folder), &mut paths);
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    paths.sort();
    assert!(paths.len() > 20, "the source is not where it is looked for");
    let mut files: Vec<_> = paths.iter().map(|path| read(root, path)).collect();
    mark_test_files(&mut files);
    files
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { collect(&path, paths) } else { paths.push(path) }
    }
}

fn read(root: &Path, path: &Path) -> SourceFile {
    let relative = path.strip_prefix(root).expect("inside").to_str().expect("UTF-8").replace('\\', "/");
    SourceFile::new(&relative, &fs::read_to_string(path).expect("readable"))
}

fn is_test_path(path: &str) -> bool {
    path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// A file that is declared as `#[cfg(test)] mod name;` is test code as a whole.
fn mark_test_files(files: &mut [SourceFile]) {
    let mut declared = Vec::new();
    for file in files.iter() {
        let folder = match file.path.strip_suffix("/mod.rs").or(file.path.strip_suffix("/lib.rs")) {
            Some(folder) => folder.to_owned(),
            None => file.path.trim_end_matches(".rs").to_owned(),
        };
        for three in file.code().windows(3) {
            if three[0].in_test && three[0].is("mod") && three[2].is(";") {
                declared.push(format!("{folder}/{}", three[1].text));
            }
        }
    }
    for file in files {
        let is_declared =
            |name: &String| file.path == format!("{name}.rs") || file.path.starts_with(&format!("{name}/"));
        if declared.iter().any(is_declared) {
            file.tokens.iter_mut().for_each(|token| token.in_test = true);
        }
    }
}

/// Marks what stands behind `#[cfg(test)]`, or a `cfg` that names `test` among others, up to the item's end.
fn mark_tests(tokens: &mut [Token]) {
    let code: Vec<usize> = (0..tokens.len()).filter(|at| tokens[*at].kind != Kind::Comment).collect();
    let mut next = 0;
    while next + 6 < code.len() {
        let is_cfg = ["#", "[", "cfg"].iter().enumerate().all(|(n, text)| tokens[code[next + n]].is(text));
        let end = is_cfg.then(|| closing(tokens, &code, next + 1)).flatten();
        let Some(end) = end else {
            next += 1;
            continue;
        };
        let inside = &code[next..end];
        let names = |text: &str| inside.iter().any(|at| tokens[*at].is(text));
        if !names("test") || names("not") {
            next = end;
            continue;
        }
        let stop = item_end(tokens, &code, end + 1);
        let last = code.get(stop).copied().unwrap_or(tokens.len() - 1);
        tokens[code[next]..=last].iter_mut().for_each(|token| token.in_test = true);
        next = stop;
    }
}

/// The place in `code` of the bracket that closes the one at `open`.
fn closing(tokens: &[Token], code: &[usize], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (place, at) in code.iter().enumerate().skip(open) {
        if ["(", "[", "{"].iter().any(|bracket| tokens[*at].is(bracket)) {
            depth += 1;
        } else if [")", "]", "}"].iter().any(|bracket| tokens[*at].is(bracket)) {
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                return Some(place);
            }
        }
    }
    None
}

/// The place in `code` where an item that begins at `from` ends: its `;`, or the brace that closes its body.
fn item_end(tokens: &[Token], code: &[usize], from: usize) -> usize {
    let mut place = from;
    while let Some(at) = code.get(place) {
        if tokens[*at].is(";") || tokens[*at].is(",") {
            return place;
        }
        let opens = ["(", "[", "{"].iter().any(|bracket| tokens[*at].is(bracket));
        if opens {
            let end = closing(tokens, code, place).unwrap_or(code.len() - 1);
            if tokens[*at].is("{") {
                return end;
            }
            place = end;
        }
        place += 1;
    }
    code.len() - 1
}

/// Cuts a text into tokens.
pub fn lex(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { rest: text, line: 1, tokens: Vec::new() };
    while !lexer.rest.is_empty() {
        lexer.step();
    }
    lexer.tokens
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    fn step(&mut self) {
        let rest = self.rest;
        let first = rest.chars().next().expect("not at the end");
        if first.is_whitespace() {
            self.skip(first.len_utf8());
        } else if rest.starts_with("//") {
            let len = rest.find('\n').unwrap_or(rest.len());
            self.push(Kind::Comment, len, 0..len);
        } else if rest.starts_with("/*") {
            let len = block_comment(rest);
            self.push(Kind::Comment, len, 0..len);
        } else if let Some((len, inside)) = string(rest) {
            self.push(Kind::Text, len, inside);
        } else if first == '\'' {
            let len = character_or_lifetime(rest);
            self.push(Kind::Other, len, 0..len);
        } else if first.is_alphabetic() || first == '_' {
            let len = word(rest);
            self.push(Kind::Word, len, 0..len);
        } else if first.is_ascii_digit() {
            let len = word(rest);
            self.push(Kind::Other, len, 0..len);
        } else {
            let len = if rest.starts_with("::") { 2 } else { first.len_utf8() };
            self.push(Kind::Sign, len, 0..len);
        }
    }

    fn push(&mut self, kind: Kind, len: usize, inside: std::ops::Range<usize>) {
        let text = self.rest[inside].to_owned();
        self.tokens.push(Token { kind, text, line: self.line, in_test: false });
        self.skip(len);
    }

    fn skip(&mut self, len: usize) {
        self.line += self.rest[..len].matches('\n').count();
        self.rest = &self.rest[len..];
    }
}

fn word(rest: &str) -> usize {
    rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
}

fn block_comment(rest: &str) -> usize {
    let (mut at, mut depth) = (2, 1);
    while depth > 0 && at < rest.len() {
        if rest[at..].starts_with("/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if rest[at..].starts_with("*/") {
            (at, depth) = (at + 2, depth - 1);
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// A string of any kind at the start: its whole length, and what is between the quotes.
fn string(rest: &str) -> Option<(usize, std::ops::Range<usize>)> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        let Some(after) = rest.strip_prefix(prefix) else { return false };
        let quote = after.trim_start_matches('#');
        quote.starts_with('"') && (quote.len() == after.len() || prefix.ends_with('r'))
    })?;
    let hashes = rest[prefix.len()..].chars().take_while(|c| *c == '#').count();
    let start = prefix.len() + hashes + 1;
    if prefix.ends_with('r') {
        let end = format!("\"{}", "#".repeat(hashes));
        let len = rest[start..].find(&end).unwrap_or(rest.len() - start - end.len());
        return Some((start + len + end.len(), start..start + len));
    }
    let mut escaped = false;
    for (at, c) in rest[start..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some((start + at + 1, start..start + at)),
            _ => {}
        }
    }
    Some((rest.len(), start..rest.len()))
}

/// `'a'`, `'\n'` or `'static`.
fn character_or_lifetime(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    let Some((_, first)) = chars.next() else { return 1 };
    if first == '\\' {
        return rest[3..].find('\'').map_or(rest.len(), |at| 3 + at + 1);
    }
    match chars.next() {
        Some((at, '\'')) => at + 1,
        _ => 1 + word(&rest[1..]).max(1),
    }
}

#[test]
fn code_is_told_from_strings_and_comments() {
    let text = r####"a::b('x', '\'', 'life, "s // \" t", r#"raw " "#, b"y") /* c /* d */ "e" */ f // "g"
h"####;
    let tokens = lex(text);
    let of = |kind| tokens.iter().filter(|t| t.kind == kind).map(|t| t.text.as_str()).collect::<Vec<_>>();
    assert_eq!(of(Kind::Word), ["a", "b", "f", "h"]);
    assert_eq!(of(Kind::Text), ["s // \\\" t", "raw \" ", "y"]);
    assert_eq!(of(Kind::Comment), ["/* c /* d */ \"e\" */", "// \"g\""]);
    assert_eq!(of(Kind::Other), ["'x'", "'\\''", "'life"]);
    assert_eq!(tokens.last().expect("not empty").line, 2);
}

#[test]
fn test_code_is_told_from_the_rest() {
    let text = "fn a() {} #[cfg(test)] #[allow(x)] mod t { fn b() { c } } fn d() {} #[cfg(test)] use e; f; \
                #[cfg(not(test))] fn g() {}";
    let file = SourceFile::new("src/x.rs", text);
    for (name, in_test) in
        [("a", false), ("b", true), ("c", true), ("d", false), ("e", true), ("f", false), ("g", false)]
    {
        let token = file.tokens.iter().find(|token| token.text == name).expect("there");
        assert_eq!(token.in_test, in_test, "{name}");
    }
    assert!(SourceFile::new("src/x/tests.rs", "a").tokens[0].in_test);
}
