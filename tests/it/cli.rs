//! The real program, for all that works without a node.

#![allow(clippy::disallowed_methods)] // a test of a deadline reads the clock

use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// The program with a home of its own and nothing of the tester's environment.
fn tintype(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tintype"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TINTYPE_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.env("TINTYPE_HOME", home).env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

fn run(home: &Path, arguments: &[&str]) -> Output {
    tintype(home).args(arguments).output().expect("the program starts")
}

fn run_with_stdin(home: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = tintype(home);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let written = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    // It may have refused without reading.
    drop(written);
    child.wait_with_output().expect("the program ends")
}

fn home() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

#[track_caller]
fn ends(output: &Output, code: i32) {
    let (out, err) = (stdout(output), stderr(output));
    assert_eq!(output.status.code(), Some(code), "stdout:\n{out}\nstderr:\n{err}");
}

/// The last line of stdout as JSON.
fn last_json(output: &Output) -> serde_json::Value {
    let out = stdout(output);
    let last = out.lines().last().unwrap_or_else(|| panic!("nothing on stdout; stderr: {}", stderr(output)));
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{last}: {error}"))
}

#[test]
fn help_and_version_are_answers() {
    let home = home();
    for arguments in [&["--help"][..], &["put", "--help"], &["user", "add", "--help"], &["--version"]] {
        let output = run(home.path(), arguments);
        ends(&output, 0);
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?}");
    }
    let version = stdout(&run(home.path(), &["--version"]));
    assert_eq!(version.trim(), concat!("tintype ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_the_line_alone_shows_to_be_wrong_ends_with_2() {
    let home = home();
    for arguments in [
        &["frobnicate"][..],
        &["put"],
        &["ls", "--nonsense"],
        &["get", "../x"],
        &["rm", "/x"],
        &["user", "add", "a/b"],
    ] {
        let output = run(home.path(), arguments);
        ends(&output, 2);
        assert!(stderr(&output).starts_with("error: "), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn with_json_an_error_is_the_last_line_of_stdout() {
    let home = home();
    for (arguments, code) in [
        (&["--json", "frobnicate"][..], 2),
        (&["--json", "user", "export", "nobody"], 1),
        (&["get", "../x", "--json"], 2),
    ] {
        let output = run(home.path(), arguments);
        ends(&output, code);
        let line = last_json(&output);
        let names: Vec<&String> = line.as_object().expect("an object").keys().collect();
        assert_eq!(names, ["error", "exit", "remedy"], "{line}");
        assert_eq!(line["exit"], code);
        assert!(!line["error"].as_str().expect("a sentence").is_empty());
        assert!(!line["remedy"].as_str().expect("a sentence").is_empty());
    }
}

#[test]
fn a_configuration_that_cannot_be_is_refused_with_file_and_key() {
    let home = home();
    let file = home.path().join("config/tintype.toml");
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
    std::fs::write(&file, "[node]\nnmae = \"desk\"\n").expect("written");
    let output = run(home.path(), &["config", "show"]);
    ends(&output, 1);
    let said = stderr(&output);
    assert!(
        said.contains("config/tintype.toml") && said.contains("node.nmae") && said.contains("node.name"),
        "{said}"
    );

    std::fs::write(&file, "[node]\nname = \"desk\"\nexpect = 0\n").expect("written");
    let said = stderr(&run(home.path(), &["config", "show"]));
    assert!(said.contains("config/tintype.toml") && said.contains("node.expect"), "{said}");

    std::fs::remove_file(&file).expect("removed");
    let output =
        tintype(home.path()).args(["config", "show"]).env("TINTYPE_NODE_EXPEKT", "3").output().expect("runs");
    ends(&output, 1);
    assert!(stderr(&output).contains("TINTYPE_NODE_EXPEKT"), "{}", stderr(&output));

    let output = run(home.path(), &["config", "show", "--config", "/nowhere/at/all.toml"]);
    ends(&output, 1);
    assert!(stderr(&output).contains("/nowhere/at/all.toml"));
}

#[test]
fn config_show_says_who_decided_each_knob() {
    let home = home();
    let file = home.path().join("my.toml");
    std::fs::write(&file, "[node]\nname = \"desk\"\nexpect = 2\n").expect("written");
    let mut command = tintype(home.path());
    command.args(["config", "show", "--json", "--log", "error", "--config"]).arg(&file);
    let output =
        command.env("TINTYPE_NODE_EXPECT", "3").env("TINTYPE_PASSPHRASE", "x").output().expect("runs");
    ends(&output, 0);
    let knobs: Vec<serde_json::Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let knob =
        |key: &str| knobs.iter().find(|knob| knob["key"] == key).unwrap_or_else(|| panic!("{key}")).clone();
    assert_eq!(
        (&knob("node.name")["value"], &knob("node.name")["source"]),
        (&"desk".into(), &file.to_str().into())
    );
    assert_eq!(
        (&knob("node.expect")["value"], &knob("node.expect")["source"]),
        (&3.into(), &"TINTYPE_NODE_EXPECT".into())
    );
    assert_eq!(
        (&knob("log.level")["value"], &knob("log.level")["source"]),
        (&"error".into(), &"--log".into())
    );
    assert_eq!(knob("put.copies")["source"], "default");
    // The manual is the file that is in the repository.
    let manual = stdout(&run(home.path(), &["config", "show", "--manual"]));
    let file =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/default.toml")).expect("a file");
    assert_eq!(manual, file);
}

#[test]
fn the_example_configuration_is_one() {
    let home = home();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config/bootstrap.example.toml");
    ends(&run(home.path(), &["config", "show", "--config", example]), 0);
}

#[test]
fn init_makes_keys_for_their_owner_alone_and_never_touches_them_again() {
    let home = home();
    let root = home.path().join("new home");
    let output = run(&root, &["init"]);
    ends(&output, 0);
    assert!(stdout(&output).contains("new home"), "{}", stdout(&output));
    let keys = ["keys/node.key", "keys/cluster.key"];
    let read = || keys.map(|key| std::fs::read(root.join(key)).expect("a key"));
    let before = read();
    #[cfg(unix)]
    for key in keys {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(root.join(key)).expect("a key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    let again = run(&root, &["init", "--json"]);
    ends(&again, 0);
    assert_eq!(last_json(&again)["made"], false);
    assert_eq!(read(), before);

    std::fs::write(root.join(keys[1]), "tintype-cluster-1:nonsense\n").expect("written");
    let broken = run(&root, &["init"]);
    ends(&broken, 1);
    assert!(stderr(&broken).contains("cluster.key"), "{}", stderr(&broken));
    assert_eq!(std::fs::read(root.join(keys[1])).expect("a key"), b"tintype-cluster-1:nonsense\n");
}

#[test]
fn a_user_goes_from_one_home_to_another_and_stays_the_same_user() {
    let (home, other) = (home(), home());
    let added = run(home.path(), &["user", "add", "alice", "--json"]);
    ends(&added, 0);
    assert!(stderr(&added).contains("tintype user export alice"), "{}", stderr(&added));
    let owner = last_json(&added)["owner"].clone();
    assert_eq!(owner.as_str().map(str::len), Some(64));

    let exported = run(home.path(), &["user", "export", "alice"]);
    ends(&exported, 0);
    assert!(!stderr(&exported).is_empty(), "a secret on stdout comes with a warning");
    let imported =
        run_with_stdin(other.path(), &["user", "import", "--name", "anna", "--json"], &stdout(&exported));
    ends(&imported, 0);
    assert_eq!(last_json(&imported)["owner"], owner);

    let file = other.path().join("backup.key");
    let file = file.to_str().expect("UTF-8");
    ends(&run(other.path(), &["user", "export", "-o", file]), 0);
    assert_eq!(std::fs::read(file).expect("a file"), exported.stdout);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(file).expect("a file").permissions().mode() & 0o777, 0o600);
    }
    ends(&run(other.path(), &["user", "export", "-o", file]), 1);
    ends(&run(other.path(), &["user", "import", file]), 0);
    let listed = stdout(&run(other.path(), &["user", "ls", "--json"]));
    let names: Vec<serde_json::Value> =
        listed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(
        names.iter().map(|user| user["name"].as_str().expect("a name")).collect::<Vec<_>>(),
        ["anna", "backup"]
    );
    assert!(names.iter().all(|user| user["owner"] == owner));
}

#[test]
fn what_is_quiet_says_nothing_of_a_new_user() {
    let home = home();
    for flag in ["-q", "--quiet"] {
        let name = format!("alice{flag}");
        let added = run(home.path(), &["user", "add", &name, flag]);
        ends(&added, 0);
        assert_eq!(stderr(&added), "");
        let again = run(home.path(), &["user", "add", &name, flag]);
        assert!(stderr(&again).starts_with("error: "), "{}", stderr(&again));
    }
}

#[test]
fn a_users_name_that_cannot_be_is_told_what_it_may_be() {
    let home = home();
    for arguments in
        [&["ls", "--as", "../x"][..], &["ls", "--as", ""], &["user", "add", ".x"], &["shell", "/"]]
    {
        let output = run(home.path(), arguments);
        let refused = output.status.code() == Some(2);
        assert!(refused && stderr(&output).contains("letters, digits"), "{arguments:?}: {output:?}");
    }
}

#[cfg(unix)]
#[test]
fn an_export_that_finds_no_room_leaves_nothing_behind() {
    let home = home();
    ends(&run(home.path(), &["user", "add", "alice"]), 0);
    let folder = home.path().join("stick");
    std::fs::create_dir(&folder).expect("made");
    let file = folder.join("alice.key");
    // No file may grow from here on, as on a full disk.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_tintype")]);
    shell.args(["user", "export", "alice", "-o"]).arg(&file).env("TINTYPE_HOME", home.path());
    let output = shell.stdin(Stdio::null()).output().expect("the shell starts");
    ends(&output, 1);
    assert!(stderr(&output).contains("alice.key"), "{}", stderr(&output));
    assert_eq!(std::fs::read_dir(&folder).expect("listed").count(), 0);
}

#[test]
fn a_users_key_is_never_overwritten() {
    let home = home();
    ends(&run(home.path(), &["user", "add", "alice"]), 0);
    let key = std::fs::read(home.path().join("keys/users/alice.key")).expect("a key");
    let again = run(home.path(), &["user", "add", "alice"]);
    ends(&again, 1);
    assert!(stderr(&again).contains("alice.key"), "{}", stderr(&again));
    ends(&run(home.path(), &["user", "add", "bob"]), 0);
    let bob = stdout(&run(home.path(), &["user", "export", "bob"]));
    ends(&run_with_stdin(home.path(), &["user", "import", "--name", "alice"], &bob), 1);
    assert_eq!(std::fs::read(home.path().join("keys/users/alice.key")).expect("a key"), key);
    // With two users somebody must say whose key is meant.
    ends(&run(home.path(), &["user", "export"]), 2);
}

#[test]
fn a_sealed_key_shows_nothing_of_the_user_and_moves_as_it_is() {
    let (home, other) = (home(), home());
    let mut add = tintype(home.path());
    let added =
        add.args(["user", "add", "alice", "--passphrase", "--json"]).env("TINTYPE_PASSPHRASE", "open sesame");
    let added = added.output().expect("runs");
    ends(&added, 0);
    assert_eq!(last_json(&added)["sealed"], true);
    let exported = stdout(&run(home.path(), &["user", "export", "alice"]));
    assert!(exported.contains(":sealed:") && !exported.contains("sesame"));
    let imported = run_with_stdin(other.path(), &["user", "import", "--name", "alice", "--json"], &exported);
    ends(&imported, 0);
    assert_eq!((&last_json(&imported)["sealed"], &last_json(&imported)["owner"]), (&true.into(), &().into()));
    let listed = stdout(&run(other.path(), &["user", "ls"]));
    assert!(listed.contains("behind a passphrase"), "{listed}");
}

#[test]
fn a_passphrase_is_asked_for_and_never_silently_left_out() {
    let home = home();
    let output = run(home.path(), &["user", "add", "alice", "--passphrase"]);
    ends(&output, 1);
    assert!(stderr(&output).contains("TINTYPE_PASSPHRASE"), "{}", stderr(&output));
    let mut empty = tintype(home.path());
    let output = empty
        .args(["user", "add", "alice", "--passphrase"])
        .env("TINTYPE_PASSPHRASE", "")
        .output()
        .expect("runs");
    ends(&output, 1);
    assert!(stderr(&output).contains("empty passphrase"), "{}", stderr(&output));
    assert!(!home.path().join("keys/users/alice.key").exists());
}

#[test]
fn a_missing_or_broken_key_is_named_with_what_to_do() {
    let home = home();
    let nobody = run(home.path(), &["user", "export"]);
    ends(&nobody, 1);
    assert!(stderr(&nobody).contains("tintype user add") && stderr(&nobody).contains("tintype user import"));
    let missing = run(home.path(), &["user", "export", "bob"]);
    ends(&missing, 1);
    assert!(
        stderr(&missing).contains("bob.key") && stderr(&missing).contains("tintype user import"),
        "{}",
        stderr(&missing)
    );
    let nonsense = run_with_stdin(home.path(), &["user", "import", "--name", "bob"], "hello\n");
    ends(&nonsense, 1);
    assert!(stderr(&nonsense).contains("standard input"), "{}", stderr(&nonsense));
    assert!(!home.path().join("keys/users/bob.key").exists());
    ends(&run(home.path(), &["user", "import", "/nowhere/bob.key"]), 1);
    ends(&run_with_stdin(home.path(), &["user", "import"], "x"), 2);
}

#[test]
fn every_shell_gets_completions_and_a_closed_pipe_is_no_failure() {
    let home = home();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = run(home.path(), &["completions", shell]);
        ends(&output, 0);
        assert!(stdout(&output).contains("tintype") && stdout(&output).contains("undelete"), "{shell}");
    }
    let mut child = tintype(home.path())
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the program ends");
    ends(&output, 0);
    assert_eq!(stderr(&output), "");
}

#[test]
fn without_a_node_bare_tintype_says_the_next_three_steps() {
    let home = home();
    let output = run(home.path(), &[]);
    ends(&output, 0);
    for step in ["1. tintype up", "2. tintype put", "3. tintype get"] {
        assert!(stdout(&output).contains(step), "{}", stdout(&output));
    }
    let json = last_json(&run(home.path(), &["--json"]));
    assert_eq!((&json["running"], &json["next"][0]), (&false.into(), &"tintype up".into()));
}

#[test]
fn without_a_node_status_says_so_within_two_seconds() {
    let home = home();
    ends(&run(home.path(), &["init"]), 0);
    let before = Instant::now();
    // Nothing listens on the discard port of the loopback.
    let output = run(home.path(), &["status", "--json", "--node", "127.0.0.1:9"]);
    assert!(before.elapsed() < Duration::from_millis(2500), "{:?}", before.elapsed());
    ends(&output, 5);
    assert_eq!(last_json(&output)["exit"], 5);
}

#[test]
fn a_log_that_no_terminal_reads_has_no_colours() {
    let home = home();
    ends(&run(home.path(), &["init"]), 0);
    let mut command = tintype(home.path());
    command.env_remove("NO_COLOR").args(["status", "--log", "trace", "--node", "127.0.0.1:9"]);
    let output = command.output().expect("the program starts");
    let said = stderr(&output);
    assert!(said.contains("TRACE") || said.contains("DEBUG"), "{said}");
    assert!(!said.contains('\u{1b}'), "{said}");
}

#[test]
fn files_that_cannot_be_put_are_refused_by_name_before_anything_is_asked() {
    let home = home();
    let folder = home.path().join("folder");
    std::fs::create_dir(&folder).expect("made");
    std::fs::write(home.path().join("empty"), "").expect("written");
    for (file, word) in [("missing.png", "missing.png"), ("empty", "empty"), ("folder", "-r")] {
        let output = run(home.path(), &["put", home.path().join(file).to_str().expect("UTF-8")]);
        ends(&output, 1);
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
    }
    std::fs::write(home.path().join("a.bin"), "x").expect("written");
    std::fs::write(folder.join("a.bin"), "y").expect("written");
    let (one, two) = (home.path().join("a.bin"), folder.join("a.bin"));
    let output = run(home.path(), &["put", one.to_str().expect("UTF-8"), two.to_str().expect("UTF-8")]);
    ends(&output, 2);
    assert!(stderr(&output).contains("a.bin"), "{}", stderr(&output));
}

#[test]
fn the_doctor_checks_this_machine_without_a_node_and_leaves_nothing() {
    let home = home();
    let output = run(home.path(), &["doctor", "--json"]);
    assert!([0, 6].contains(&output.status.code().expect("a code")), "{}", stderr(&output));
    let reports: Vec<serde_json::Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for check in ["port", "firewall", "multicast", "open files", "disk space", "disk speed", "node"] {
        assert!(reports.iter().any(|report| report["check"] == check), "{check}: {reports:?}");
    }
    let finding = reports.iter().any(|report| report["verdict"] == "finding");
    assert_eq!(output.status.code(), Some(if finding { 6 } else { 0 }));
    for report in reports.iter().filter(|report| report["verdict"] == "finding") {
        assert_ne!(report["remedy"], "", "{report}");
    }
    assert_eq!(std::fs::read_dir(home.path()).expect("a folder").count(), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_service_unit_runs_this_program_with_this_home() {
    let home = home();
    let config = home.path().join("xdg");
    let install = |arguments: &[&str]| {
        tintype(home.path()).args(arguments).env("XDG_CONFIG_HOME", &config).output().expect("runs")
    };
    ends(&install(&["service", "install"]), 0);
    let path = config.join("systemd/user/tintype.service");
    let unit = std::fs::read_to_string(&path).expect("a unit");
    assert!(unit.contains(home.path().to_str().expect("UTF-8")) && unit.contains(" up\n"), "{unit}");
    std::fs::write(&path, "mine").expect("written");
    ends(&install(&["service", "install"]), 1);
    ends(&install(&["service", "install", "--yes"]), 0);
    assert_eq!(std::fs::read_to_string(&path).expect("a unit"), unit);
}
