//! What the program answers when files are put, read, listed and removed: on real nodes, by the real program.
//!
//! Each test has one node of its own and asks it many things, because starting nodes is what costs time.

#![allow(clippy::disallowed_methods)] // a test of a deadline reads the clock

use std::{
    collections::BTreeMap,
    io::Cursor,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use image::{DynamicImage, ImageFormat, RgbImage};
use serde_json::Value;

use crate::cluster::{
    Cluster, PROGRAM, ends, fields, finish, noise, objects, run_with_stdin, text, wait_for,
};

const PATIENCE: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;

/// Names in a listing, in its order.
#[track_caller]
fn listed(cluster: &Cluster, args: &[&str]) -> Vec<String> {
    let all = [&["ls", "--json"], args].concat();
    let names = |o: &Value| o["name"].as_str().expect("a name").to_owned();
    objects(&cluster.ok(&all)).iter().map(names).collect()
}

/// All files under a folder with their bytes, by relative path.
fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).expect("inside").to_owned();
                found.insert(name, std::fs::read(&path).expect("read"));
            }
        }
    }
    found
}

/// A picture with some content, encoded.
fn picture(format: ImageFormat) -> Vec<u8> {
    let pixels = RgbImage::from_fn(400, 300, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]));
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(pixels).write_to(&mut bytes, format).expect("encoded");
    bytes.into_inner()
}

#[test]
fn a_tree_of_many_small_files_comes_back_byte_for_byte() {
    let cluster = Cluster::start(1);
    let sizes = [1, 1023, 1024, 1025, 65_535, 65_536, 65_537, 200_000, MIB, MIB + 1];
    for number in 0..30 {
        let folder = ["", "a/", "a/deep er/"][number % 3];
        let name = format!("tree/{folder}{number}.bin");
        cluster.file(&name, &noise(number as u64, sizes[number % sizes.len()]));
    }
    let root = cluster.dir().join("tree");
    let put = objects(&cluster.ok(&["put", "-r", text(&root), "--prefix", "old/", "--json"]));
    assert_eq!(put.len(), 30);
    for done in &put {
        // The seven promised names, and three more.
        let promised = ["bytes", "copies", "ms", "name", "nodes", "survives", "version"];
        assert!(promised.iter().all(|name| fields(done).iter().any(|field| field == name)), "{done}");
        assert_eq!(fields(done).len(), promised.len() + 3, "{done}");
        assert_eq!((&done["version"], &done["survives"], &done["copies"]), (&1.into(), &0.into(), &1.into()));
        assert_eq!(done["nodes"], serde_json::json!(["node-1"]));
    }
    let again = cluster.ok(&["put", "-r", text(&root), "--prefix", "old/"]);
    assert_eq!(
        again.lines().filter(|line| line.ends_with("version 1  unchanged  survives 0")).count(),
        30,
        "{again}"
    );

    assert_eq!(listed(&cluster, &[]).len(), 30);
    assert_eq!(listed(&cluster, &["old/tree/a/deep er/"]).len(), 10);
    assert!(listed(&cluster, &["old/tree/b"]).is_empty());
    let listing = objects(&cluster.ok(&["ls", "--json", "old/tree/0.bin"]));
    let names = ["bytes", "media_type", "name", "removed", "unix_ms", "version"];
    assert_eq!((listing.len(), fields(&listing[0])), (1, names.to_vec()));
    assert_eq!(listing[0]["bytes"], 1);

    let out = cluster.dir().join("out");
    cluster.ok(&["get", "--all", "-o", text(&out)]);
    assert_eq!(tree(&out.join("old/tree")), tree(&root));
    let again = cluster.ok(&["get", "--all", "-o", text(&out)]);
    assert_eq!(again.lines().filter(|line| line.ends_with("unchanged")).count(), 30, "{again}");
    let part = cluster.dir().join("part");
    cluster.ok(&["get", "-r", "old/tree/a/deep er/", "-o", text(&part)]);
    assert_eq!(tree(&part.join("old/tree/a/deep er")), tree(&root.join("a/deep er")));
    assert_eq!(tree(&part).len(), 10);
    ends(&cluster.run(&["get", "-r", "new/", "-o", text(&part)]), 3, &["\"new/\""]);
    ends(&cluster.run(&["get", "--all", "-o", "-"]), 2, &["standard output"]);
}

#[test]
fn names_come_from_files_flags_and_folders() {
    let cluster = Cluster::start(1);
    let (a, b) = (cluster.file("x/a.bin", &noise(1, 5000)), cluster.file("y/b.bin", &noise(2, 6000)));
    let said = cluster.ok(&["put", text(&a), text(&b)]);
    assert!(said.contains("a.bin  version 1  5.0 kB  1 of 1 copy (node-1)  survives 0  "), "{said}");
    assert!(said.contains("b.bin  version 1  6.0 kB"), "{said}");
    cluster.ok(&["put", text(&a), "--prefix", "trip/"]);
    cluster.ok(&["put", text(&a), "--prefix", "trip/", "--name", "one.bin"]);
    let piped = noise(3, 3 * MIB + 7);
    ends(&run_with_stdin(cluster.command(&["put", "-", "--name", "from/stdin"]), &piped), 0, &["from/stdin"]);
    assert_eq!(listed(&cluster, &[]), ["a.bin", "b.bin", "from/stdin", "trip/a.bin", "trip/one.bin"]);
    assert_eq!(cluster.get("from/stdin"), Some(piped.clone()));
    ends(&run_with_stdin(cluster.command(&["put", "-", "--name", "nothing"]), b""), 1, &["empty"]);
    assert_eq!(cluster.get("nothing"), None);

    let both = cluster.command(&["get", "b.bin", "a.bin", "-o", "-"]).output().expect("runs");
    assert_eq!(both.stdout, [noise(2, 6000), noise(1, 5000)].concat());
    let folder = cluster.dir().join("into");
    std::fs::create_dir(&folder).expect("made");
    cluster.ok(&["get", "from/stdin", "trip/one.bin", "-o", text(&folder)]);
    let names: Vec<PathBuf> = tree(&folder).into_keys().collect();
    assert_eq!(names, [PathBuf::from("one.bin"), PathBuf::from("stdin")]);
    let mut here = cluster.command(&["get", "from/stdin", "--json"]);
    let here_folder = cluster.dir().join("here");
    std::fs::create_dir(&here_folder).expect("made");
    let answer = finish(here.current_dir(&here_folder));
    assert_eq!(objects(&answer.stdout)[0]["bytes"], 3 * MIB + 7);
    assert_eq!(tree(&here_folder)[Path::new("stdin")], piped);
    let both_missing = cluster.run(&["get", "no.bin", "a.bin", "-o", text(&folder), "--json"]);
    ends(&both_missing, 3, &["no.bin"]);
    assert_eq!(tree(&folder)[Path::new("a.bin")], noise(1, 5000));
    let last = objects(&both_missing.stdout).pop().expect("a line");
    assert_eq!((fields(&last), &last["exit"]), (vec!["error", "exit", "remedy"], &3.into()));
}

#[test]
fn a_get_goes_on_where_it_stopped_and_replaces_nothing() {
    let cluster = Cluster::start(1);
    let bytes = noise(5, 24 * MIB + 99);
    cluster.put("big.bin", &bytes);
    let out = cluster.dir().join("big.bin");
    let get = ["get", "big.bin", "--json", "-o", text(&out)];

    let planted = cluster.dir().join(".big.bin.tintype-part");
    let mut wrong = bytes[..4 * MIB].to_vec();
    wrong[2 * MIB + 5] ^= 1;
    std::fs::write(&planted, &wrong).expect("written");
    let done = objects(&cluster.ok(&get));
    assert_eq!(done[0]["resumed_bytes"], 2 * MIB, "{done:?}");
    assert_eq!(std::fs::read(&out).expect("a file"), bytes);
    assert!(!planted.exists());

    assert_eq!(objects(&cluster.ok(&get))[0]["unchanged"], true);
    let mut other = bytes.clone();
    other[20 * MIB] ^= 1;
    for different in [&other[..], &b"short"[..]] {
        std::fs::write(&out, different).expect("written");
        ends(&cluster.run(&["get", "big.bin", "-o", text(&out)]), 1, &["big.bin exists", "--force"]);
        assert_eq!(std::fs::read(&out).expect("a file"), different);
    }
    cluster.ok(&["get", "big.bin", "--force", "-o", text(&out)]);
    assert_eq!(std::fs::read(&out).expect("a file"), bytes);

    std::fs::remove_file(&out).expect("removed");
    let mut child = cluster.command(&get).stdout(Stdio::null()).spawn().expect("the program starts");
    let begun = || std::fs::metadata(&planted).is_ok_and(|about| about.len() > 2 * MIB as u64);
    wait_for("a part file", PATIENCE, || begun() || out.exists());
    child.kill().expect("killed");
    child.wait().expect("ended");
    let left = planted.exists();
    assert!(left != out.exists(), "either half of it or all of it is there");
    let done = objects(&cluster.ok(&get));
    assert!(done[0]["resumed_bytes"].as_u64() > Some(0), "{done:?}");
    assert_eq!(std::fs::read(&out).expect("a file"), bytes);
}

#[cfg(unix)]
#[test]
fn a_node_that_is_silent_for_a_while_has_lost_nothing() {
    let cluster = Cluster::start(1);
    let bytes = noise(6, 48 * MIB);
    cluster.put("big.bin", &bytes);
    let (out, part) = (cluster.dir().join("big.bin"), cluster.dir().join(".big.bin.tintype-part"));
    let mut get = cluster.command(&["get", "big.bin", "--force", "-o", text(&out)]);
    let child = get.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    wait_for("a part file", PATIENCE, || std::fs::metadata(&part).is_ok_and(|about| about.len() > 0));
    let pid = cluster.nodes.pid(0).expect("it runs").to_string();
    let signal = |name: &str| Command::new("kill").args([name, &pid]).status().expect("kill runs").success();
    assert!(signal("-STOP"));
    // Longer than two attempts at half a second each, shorter than the connection's patience.
    std::thread::sleep(Duration::from_millis(1150));
    assert!(signal("-CONT"));
    let output = child.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(std::fs::read(&out).expect("a file"), bytes);
}

#[test]
fn files_that_cannot_be_put_keep_no_other_from_it() {
    let cluster = Cluster::start(1);
    let good = cluster.file("good.bin", &noise(1, 9000));
    let (folder, empty) = (cluster.dir().join("folder"), cluster.file("empty.bin", b""));
    std::fs::create_dir(&folder).expect("made");
    let huge = cluster.file("huge.bin", b"x");
    let sparse = std::fs::File::options().write(true).open(&huge).expect("opened");
    sparse.set_len((64 << 30) + 1).expect("a sparse file");
    let missing = cluster.dir().join("missing.bin");
    let sealed = cluster.file("sealed.bin", b"secret");
    forbid(&sealed);
    let unreadable = std::fs::File::open(&sealed).is_err();

    let mut paths = vec![&missing, &empty, &folder, &huge, &good];
    let mut words =
        vec!["missing.bin", "no such file", "empty.bin", "it is a folder", "-r", "huge.bin", "64 GiB"];
    if unreadable {
        paths.push(&sealed);
        words.extend(["sealed.bin", "may not be read"]);
    }
    let args: Vec<&str> = std::iter::once("put").chain(paths.iter().map(|path| text(path))).collect();
    let answer = cluster.run(&args);
    ends(&answer, 1, &words);
    assert!(answer.stdout.contains("good.bin  version 1"), "{answer:?}");
    assert_eq!(listed(&cluster, &[]), ["good.bin"]);
    for path in &paths[..4] {
        ends(&cluster.run(&["put", text(path)]), 1, &[text(path)]);
    }

    // Names that the command line shows to be wrong: nothing at all is sent.
    let (one, two) = (cluster.file("one/x.bin", b"1"), cluster.file("two/x.bin", b"2"));
    let next = text(&cluster.file("next.bin", b"3")).to_owned();
    let long = "n".repeat(1025);
    for args in [
        &["put", &next, text(&one), text(&two)][..],
        &["put", &next, "--name", "../x"],
        &["put", &next, "--name", "a/../x"],
        &["put", &next, "--name", "/x"],
        &["put", &next, "--name", "a\u{7}b"],
        &["put", &next, "--name", &long],
        &["put", &next, "--prefix", "../"],
        &["put", "-"],
        &["get", "../x"],
        &["rm", "next.bin", "/x"],
        &["get", "a/x.png", "b/x.png"],
        &["get", "x.png", "x.png"],
        &["ls", "--as", "../x"],
        &["put", &next, "--as", ""],
    ] {
        let answer = cluster.run(args);
        ends(&answer, 2, &["error: "]);
        assert!(answer.stdout.is_empty(), "{answer:?}");
    }
    odd_names(&cluster, &next);
    assert_eq!(listed(&cluster, &[]), ["good.bin"]);
}

#[cfg(unix)]
fn forbid(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o000)).expect("set");
}

#[cfg(not(unix))]
fn forbid(_: &Path) {}

#[cfg(unix)]
fn odd_names(cluster: &Cluster, good: &str) {
    use std::os::unix::ffi::OsStrExt;
    for (name, word) in [(&b"not-\xff-utf8"[..], "UTF-8"), (b"two\nlines", "control")] {
        let path = cluster.dir().join(std::ffi::OsStr::from_bytes(name));
        std::fs::write(&path, b"x").expect("written");
        ends(&finish(cluster.command(&["put", good]).arg(&path)), 2, &[word]);
        let answer =
            finish(cluster.command(&["put", "--name", "fine"]).arg(&path).args(["--if-version", "7"]));
        ends(&answer, 4, &["fine"]);
    }
}

#[cfg(not(unix))]
fn odd_names(_: &Cluster, _: &str) {}

#[test]
fn broken_pictures_are_refused_and_whole_ones_have_a_thumbnail() {
    let cluster = Cluster::start(1);
    let mut whole = vec!["put".to_owned()];
    for (kind, format) in [
        ("png", ImageFormat::Png),
        ("jpeg", ImageFormat::Jpeg),
        ("gif", ImageFormat::Gif),
        ("webp", ImageFormat::WebP),
        ("bmp", ImageFormat::Bmp),
        ("tiff", ImageFormat::Tiff),
    ] {
        let good = picture(format);
        whole.push(text(&cluster.file(&format!("whole.{kind}"), &good)).to_owned());
        let mut broken = good[..good.len() * 2 / 3].to_vec();
        if kind == "png" {
            // As long as it was, but one bit has changed.
            broken = good.clone();
            broken[good.len() / 2] ^= 1;
        }
        let path = cluster.file(&format!("broken.{kind}"), &broken);
        ends(&cluster.run(&["put", text(&path)]), 1, &[&format!("broken.{kind}"), "broken", "--force"]);
    }
    assert!(listed(&cluster, &[]).is_empty());
    let names: Vec<&str> = whole.iter().map(String::as_str).collect();
    cluster.ok(&names);
    for kind in ["png", "jpeg", "gif", "webp", "bmp", "tiff"] {
        let stat = objects(&cluster.ok(&["stat", "--json", &format!("whole.{kind}")])).remove(0);
        let type_of = format!("image/{kind}");
        assert_eq!((&stat["media_type"], &stat["thumbnail"]), (&type_of.into(), &true.into()), "{stat}");
    }
    // On standard input they go by once, and are judged and shown small all the same.
    for (kind, format) in
        [("png", ImageFormat::Png), ("jpeg", ImageFormat::Jpeg), ("tiff", ImageFormat::Tiff)]
    {
        let good = picture(format);
        let name = format!("piped.{kind}");
        let put = || cluster.command(&["put", "-", "--name", &name]);
        ends(&run_with_stdin(put(), &good[..good.len() * 2 / 3]), 1, &["broken", "--force"]);
        ends(&run_with_stdin(put(), &good), 0, &[&name, "version 1"]);
        let stat = objects(&cluster.ok(&["stat", "--json", &name])).remove(0);
        assert_eq!(stat["thumbnail"], true, "{stat}");
        assert!(cluster.get(&name).as_deref() == Some(&good[..]));
    }
    let good = cluster.file("good.bin", b"good");
    let broken = cluster.dir().join("broken.png");
    let answer = cluster.run(&["put", text(&broken), text(&good)]);
    ends(&answer, 1, &["broken.png", "good.bin  version 1"]);
    cluster.ok(&["put", "--force", text(&broken)]);
    assert_eq!(cluster.get("broken.png"), std::fs::read(&broken).ok());
    let stat = cluster.ok(&["stat", "broken.png"]);
    assert!(stat.contains("application/octet-stream"), "{stat}");
}

#[test]
fn everything_else_is_stored_as_bytes_with_the_type_of_its_content() {
    let cluster = Cluster::start(1);
    let tail = noise(1, 400);
    let with = |head: &[u8]| [head, &tail[..]].concat();
    let files: [(&str, Vec<u8>, &str); 6] = [
        ("phone.bin", with(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"), "image/heic"),
        ("camera.bin", with(b"FUJIFILMCCD-RAW 0201FF"), "image/x-fuji-raf"),
        ("canon.jpg", with(b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom"), "image/x-canon-cr3"),
        ("film.png", with(b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41"), "video/mp4"),
        ("note.png", b"only words here, whatever its name says\n".to_vec(), "text/plain"),
        ("noise.png", tail.clone(), "application/octet-stream"),
    ];
    let paths: Vec<PathBuf> = files.iter().map(|(name, bytes, _)| cluster.file(name, bytes)).collect();
    cluster.ok(&std::iter::once("put").chain(paths.iter().map(|p| text(p))).collect::<Vec<_>>());
    let listing = objects(&cluster.ok(&["ls", "--json"]));
    for (name, bytes, kind) in &files {
        let found = listing.iter().find(|object| object["name"] == *name).expect("listed");
        let said = found["media_type"].as_str().expect("a type");
        assert!(said.starts_with(kind), "{name}: {said}");
        assert_eq!(cluster.get(name).as_ref(), Some(bytes));
    }
}

#[test]
fn a_name_that_turns_the_line_around_is_written_out() {
    let cluster = Cluster::start(1);
    let name = "gpj.\u{202e}exe.png";
    let put = cluster.put(name, b"bytes");
    let said = [put, cluster.ok(&["ls"]), cluster.ok(&["stat", name]), cluster.ok(&["where", name])];
    for text in said {
        assert!(text.contains(r"gpj.\u{202e}exe.png") && !text.contains('\u{202e}'), "{text:?}");
    }
    // Programs read the name as it is.
    assert_eq!(listed(&cluster, &[]), [name]);
    assert_eq!(cluster.get(name).as_deref(), Some(&b"bytes"[..]));
}

#[test]
fn a_path_with_a_line_end_in_it_stays_on_its_line() {
    let cluster = Cluster::start(1);
    let odd = cluster.file("odd/b\nerror: all is lost\u{1b}[31m.bin", b"bytes");
    let refused = cluster.run(&["put", "-r", text(odd.parent().expect("a folder"))]);
    ends(&refused, 1, &[r"b\nerror: all is lost\u{1b}[31m.bin: it cannot be a name", "rename it"]);
    assert!(!refused.stderr.contains("\nerror: all is lost"), "{refused:?}");
}

#[test]
fn a_name_that_has_no_address_keeps_no_other_node_from_being_asked() {
    let cluster = Cluster::start(1);
    let (nobody, nonsense) = ("nobody.invalid:4117", "no address at all");
    for args in [&["status", "--node", nobody][..], &["nodes", "--node", nobody, "--json"]] {
        let answer = cluster.run(args);
        ends(&answer, 0, &["nobody.invalid", "has no address", "the other addresses are used"]);
        assert!(!answer.stdout.contains("nobody.invalid"), "{answer:?}");
    }
    ends(&cluster.run(&["status", "--node", nonsense]), 2, &[nonsense]);
    let alone = |addr: &str| {
        let mut command = Command::new(PROGRAM);
        finish(command.args(["status", "--node", addr]).arg("--home").arg(&cluster.client))
    };
    let answer = alone(nobody);
    ends(&answer, 5, &["no node answered", "nobody.invalid"]);
    assert!(answer.took < Duration::from_secs(4), "{answer:?}");
    ends(&alone(nonsense), 2, &[nonsense]);
}

#[test]
fn without_a_node_it_says_so_at_once() {
    let cluster = Cluster::prepare(1);
    let file = cluster.file("a.bin", b"bytes");
    for args in [&["status", "--json"][..], &["ls", "--json"], &["put", text(&file), "--json"]] {
        let answer = cluster.run(args);
        ends(&answer, 5, &["no node answered"]);
        // The program promises two seconds; a loaded machine may take a while to start it.
        assert!(answer.took < Duration::from_secs(4), "{args:?}: {:?}", answer.took);
        let last = objects(&answer.stdout).pop().expect("a line");
        assert_eq!((fields(&last), &last["exit"]), (vec!["error", "exit", "remedy"], &5.into()));
        let words = last["error"].as_str().expect("a sentence");
        let waited = words.split_whitespace().find_map(|word| word.parse::<u64>().ok()).expect("a number");
        // Two seconds, and what a loaded machine takes to notice that they are over.
        assert!(waited < 2500, "{words}");
    }
    let nowhere = cluster.dir().join("empty home");
    let mut command = Command::new(PROGRAM);
    command.args(["ls", "--home"]).arg(&nowhere).env("TINTYPE_NETWORK_MDNS", "false");
    ends(&finish(&mut command), 1, &["cluster.key", "copy", "tintype up"]);
    assert!(!nowhere.exists(), "looking makes nothing");
}
