//! Pictures in which something is hidden, by the real program: what a user types, and what comes back.

use std::{
    fs,
    io::Cursor,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use image::{DynamicImage, ExtendedColorType, ImageFormat, RgbImage};
use tempfile::TempDir;

use crate::cluster::{Answer, Cluster, PROGRAM, ends, fields, finish, noise, objects, run_with_stdin, text};

/// A home without any node, and a folder of pictures.
struct Desk {
    dir: TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { dir: tempfile::tempdir().expect("a folder") };
        fs::write(desk.path("photo.png"), photo(ImageFormat::Png)).expect("written");
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).expect("written");
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TINTYPE_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.args(args).current_dir(self.dir.path()).env("TINTYPE_HOME", self.path("home"));
        command.env("USER", "anna").env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Answer {
        finish(&mut self.command(args))
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let answer = self.run(args);
        assert_eq!(answer.code, Some(0), "{args:?}: {answer:?}");
        answer.stdout
    }
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).expect("encodes");
    bytes.into_inner()
}

/// 80 by 60 pixels of noise: 1,800 bytes are hidden in them, length and mark included.
fn photo(format: ImageFormat) -> Vec<u8> {
    let image = RgbImage::from_raw(80, 60, noise(9, 80 * 60 * 3)).expect("so many bytes");
    encoded(&DynamicImage::ImageRgb8(image), format)
}

/// Another tool of the same layout, written from its description: red, green, blue, row by row, the most
/// significant bit first, a length of four bytes in front.
mod other_tool {
    pub fn hide(image: &mut image::RgbImage, text: &[u8]) {
        let wire = [&(text.len() as u32).to_be_bytes()[..], text].concat();
        let mut samples = image.pixels_mut().flat_map(|pixel| pixel.0.iter_mut());
        for byte in wire {
            for bit in (0..8).rev() {
                let sample = samples.next().expect("it fits");
                *sample = (*sample & 0xfe) | ((byte >> bit) & 1);
            }
        }
    }

    pub fn reveal(image: &image::RgbImage) -> Vec<u8> {
        let mut samples = image.pixels().flat_map(|pixel| pixel.0);
        let mut byte = || (0..8).fold(0, |byte, _| byte << 1 | (samples.next().expect("a sample") & 1));
        let len = u32::from_be_bytes([byte(), byte(), byte(), byte()]);
        (0..len).map(|_| byte()).collect()
    }
}

#[test]
fn a_text_is_hidden_and_comes_back() {
    let desk = Desk::new();
    let said = desk.ok(&["hide", "--local", "--text", "Grüße, at nine", "photo.png"]);
    assert!(said.starts_with("photo.png  16 of 1788 bytes hidden  -> photo.hidden.png"), "{said}");
    assert_eq!(desk.ok(&["reveal", "photo.hidden.png"]), "Grüße, at nine");
    // Other tools read ours, and we theirs.
    let image = image::load_from_memory(&desk.read("photo.hidden.png")).expect("a PNG").to_rgb8();
    assert_eq!(other_tool::reveal(&image), "Grüße, at nine".as_bytes());
    let mut theirs = image;
    other_tool::hide(&mut theirs, "von drüben\n".as_bytes());
    desk.file("theirs.png", &encoded(&DynamicImage::ImageRgb8(theirs), ImageFormat::Png));
    let answer = desk.run(&["reveal", "theirs.png"]);
    ends(&answer, 0, &["von drüben\n", "Another tool"]);
    // Nothing is replaced unasked.
    let answer = desk.run(&["hide", "--local", "--text", "at ten", "photo.png"]);
    ends(&answer, 1, &["photo.hidden.png", "--force"]);
    assert_eq!(desk.ok(&["reveal", "photo.hidden.png"]), "Grüße, at nine");
    desk.ok(&["hide", "--local", "--text", "at ten", "photo.png", "--force"]);
    assert_eq!(desk.ok(&["reveal", "photo.hidden.png"]), "at ten");
    assert_eq!(desk.read("photo.png"), photo(ImageFormat::Png), "the picture itself stays as it was");
}

#[test]
fn json_has_the_promised_names() {
    let desk = Desk::new();
    let one = |args: &[&str]| objects(&desk.ok(args)).pop().expect("an object");
    let hidden = one(&["hide", "--local", "--json", "--text", "x", "photo.png"]);
    let names = ["bytes", "capacity", "hidden_bytes", "image", "ms", "path", "sealed", "stored"];
    assert_eq!(fields(&hidden), names);
    assert_eq!((&hidden["hidden_bytes"], &hidden["capacity"]), (&1.into(), &1788.into()));
    let found = one(&["reveal", "--json", "photo.hidden.png"]);
    assert_eq!(fields(&found), ["bytes", "image", "path", "sealed", "text"]);
    assert_eq!(found["text"], "x");
    let info = one(&["stego", "info", "--json", "photo.hidden.png"]);
    let names = ["capacity", "capacity_sealed", "height", "hidden", "hidden_bytes", "image", "width"];
    assert_eq!(fields(&info), names);
    assert_eq!(
        (&info["hidden"], &info["hidden_bytes"], &info["width"]),
        (&"plain".into(), &1.into(), &80.into())
    );
    let small = one(&["thumbnail", "--local", "--json", "--edge", "20", "photo.png"]);
    assert_eq!(fields(&small), ["bytes", "bytes_before", "height", "image", "ms", "path", "stored", "width"]);
    assert_eq!((&small["width"], &small["height"]), (&20.into(), &15.into()));
    assert!(desk.path("photo.thumb.jpg").exists());
    let answer = desk.run(&["reveal", "--json", "photo.png"]);
    ends(&answer, 3, &["nothing hidden here"]);
    assert_eq!(objects(&answer.stdout)[0]["exit"], 3);
}

#[test]
fn bytes_that_are_no_text_come_back_one_by_one() {
    let desk = Desk::new();
    let bytes = noise(3, 1788);
    desk.file("key.bin", &bytes);
    for seal in [&[][..], &["--seal"]] {
        let part = if seal.is_empty() { 1788 } else { 1724 };
        desk.file("key.bin", &bytes[..part]);
        let args = ["hide", "--local", "--file", "key.bin", "photo.png", "-o", "full.png", "--force"];
        desk.ok(&[&args[..], seal].concat());
        desk.ok(&["reveal", "full.png", "-o", "back.bin", "--force"]);
        assert!(desk.read("back.bin") == bytes[..part], "sealed: {seal:?}");
        let piped = desk.command(&["reveal", "full.png"]).output().expect("runs");
        assert!(piped.stdout == bytes[..part]);
    }
    // From and to pipes.
    let mut command = desk.command(&["hide", "--local", "--text", "piped", "-", "-o", "-"]);
    command.stdin(Stdio::from(fs::File::open(desk.path("photo.png")).expect("opens")));
    let png = command.output().expect("runs").stdout;
    let answer = run_with_stdin(desk.command(&["reveal", "-"]), &png);
    ends(&answer, 0, &["piped"]);
}

#[test]
fn more_than_fits_is_refused_with_both_numbers() {
    let desk = Desk::new();
    desk.file("long.bin", &noise(4, 1789));
    let answer = desk.run(&["hide", "--local", "--file", "long.bin", "photo.png"]);
    ends(&answer, 1, &["1789", "1788"]);
    // Before anything else is done: without --local, too.
    let answer = desk.run(&["hide", "--file", "long.bin", "photo.png"]);
    ends(&answer, 1, &["1789", "1788"]);
    let answer = desk.run(&["hide", "--local", "--seal", "--file", "long.bin", "photo.png"]);
    ends(&answer, 1, &["1789", "1724"]);
    assert!(!desk.path("home").join("keys/users/anna.key").exists(), "no key was made for nothing");
    assert!(!desk.path("photo.hidden.png").exists());
    for empty in [&["--text", ""][..], &["--file", "/dev/null"]] {
        ends(&desk.run(&[&["hide", "--local", "photo.png"], empty].concat()), 2, &["nothing to hide"]);
    }
}

#[test]
fn what_is_sealed_is_read_by_its_owner_alone() {
    let desk = Desk::new();
    let answer = desk.run(&["hide", "--local", "--seal", "--text", "for anna", "photo.png"]);
    ends(&answer, 0, &["8 of 1724 bytes hidden, sealed", "Back it up now"]);
    assert_eq!(desk.ok(&["reveal", "photo.hidden.png"]), "for anna");
    ends(&desk.run(&["stego", "info", "photo.hidden.png"]), 0, &["something is sealed here"]);
    desk.ok(&["user", "add", "bert"]);
    let answer = desk.run(&["reveal", "photo.hidden.png", "--as", "bert"]);
    ends(&answer, 3, &["not for this user's key", "--as"]);
    assert!(answer.stdout.is_empty());
    ends(&desk.run(&["reveal", "photo.hidden.png"]), 1, &["anna, bert"]);
    assert_eq!(desk.ok(&["reveal", "photo.hidden.png", "--as", "anna"]), "for anna");
    // Changed in one pixel that holds something of it: the beginning is its header.
    let mut image = image::load_from_memory(&desk.read("photo.hidden.png")).expect("a PNG").to_rgb8();
    image.get_pixel_mut(30, 0).0[0] ^= 1;
    desk.file("changed.png", &encoded(&DynamicImage::ImageRgb8(image), ImageFormat::Png));
    ends(&desk.run(&["reveal", "changed.png", "--as", "anna"]), 3, &["or its beginning was changed"]);
}

#[test]
fn every_format_is_taken_and_a_png_given() {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
    let desk = Desk::new();
    for (name, format) in
        [("a.png", Png), ("a.jpg", Jpeg), ("a.gif", Gif), ("a.webp", WebP), ("a.bmp", Bmp), ("a.tif", Tiff)]
    {
        desk.file(name, &photo(format));
        let out = format!("{name}.png");
        desk.ok(&["hide", "--local", "--quiet", "--text", name, name, "-o", &out]);
        assert_eq!(desk.ok(&["reveal", &out]), name);
        assert_eq!(image::guess_format(&desk.read(&out)).expect("a picture"), Png);
    }
    for lossy in ["b.jpg", "b.webp", "b.gif"] {
        let answer = desk.run(&["hide", "--local", "--text", "x", "photo.png", "-o", lossy]);
        ends(&answer, 2, &["would destroy", "b.png"]);
        assert!(!desk.path(lossy).exists());
    }
    ends(&desk.run(&["reveal", "a.jpg"]), 3, &["nothing hidden here"]);
}

#[test]
fn nothing_hidden_is_said_to_be_nothing_whatever_the_pixels_spell() {
    let desk = Desk::new();
    ends(&desk.run(&["reveal", "photo.png"]), 3, &["nothing hidden here"]);
    ends(&desk.run(&["stego", "info", "photo.png"]), 0, &["room for 1788 bytes", "nothing hidden here"]);
    for len in [40u32, 700, 1796] {
        let mut image = image::load_from_memory(&photo(ImageFormat::Png)).expect("a PNG").to_rgb8();
        // A length that fits, and bytes of chance behind it.
        let found = other_tool::reveal(&{
            let mut with_length = image.clone();
            other_tool::hide(&mut with_length, &noise(u64::from(len), len as usize));
            image = with_length;
            image.clone()
        });
        desk.file("chance.png", &encoded(&DynamicImage::ImageRgb8(image), ImageFormat::Png));
        ends(&desk.run(&["reveal", "chance.png"]), 3, &["nothing hidden here"]);
        desk.ok(&["reveal", "chance.png", "--unmarked", "-o", "found.bin", "--force"]);
        assert_eq!(desk.read("found.bin"), found);
    }
}

#[test]
fn bad_pictures_are_refused_with_a_sentence() {
    let desk = Desk::new();
    desk.file("text.png", b"hello");
    desk.file("cut.png", &photo(ImageFormat::Png)[..5000]);
    desk.file("cut.jpg", &photo(ImageFormat::Jpeg)[..3000]);
    let mut bomb = photo(ImageFormat::Png);
    bomb[16..24].copy_from_slice(&[0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0]);
    let crc = crc32fast::hash(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    desk.file("bomb.png", &bomb);
    desk.file("moving.gif", &moving_gif());
    for (name, words) in [
        ("text.png", "not a picture"),
        ("cut.png", "cut off or damaged"),
        ("cut.jpg", "cut off or damaged"),
        ("bomb.png", "100000 x 100000"),
        ("moving.gif", "animated"),
        ("missing.png", "No such file"),
    ] {
        for args in [&["hide", "--local", "--text", "x"][..], &["thumbnail", "--local", "--edge", "9"]] {
            let answer = desk.run(&[args, &[name]].concat());
            ends(&answer, 1, &["error: ", name, words]);
            assert!(answer.stdout.is_empty());
        }
    }
    ends(&desk.run(&["reveal", "bomb.png"]), 1, &["100000 x 100000"]);
    desk.ok(&["hide", "--local", "--first-frame", "--text", "x", "moving.gif"]);
    assert_eq!(desk.ok(&["reveal", "moving.hidden.png"]), "x");
    let left: Vec<_> =
        fs::read_dir(desk.dir.path()).expect("listed").map(|e| e.expect("one").file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with("tintype-part")), "{left:?}");
}

fn moving_gif() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
    for shade in [10, 200] {
        encoder.encode(&vec![shade; 20 * 20 * 3], 20, 20, ExtendedColorType::Rgb8).expect("encodes");
    }
    drop(encoder);
    bytes
}

#[test]
fn metadata_is_stripped_and_a_thumbnail_is_upright() {
    let desk = Desk::new();
    let jpeg = photo(ImageFormat::Jpeg);
    let exif = b"\xff\xe1\0\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    desk.file("camera.jpg", &[&jpeg[..2], exif, b"\xff\xfe\0\x09my home", &jpeg[2..]].concat());
    desk.ok(&["strip", "--local", "camera.jpg"]);
    let stripped = desk.read("camera.stripped.jpg");
    assert!(!stripped.windows(7).any(|seven| seven == b"my home"));
    desk.ok(&["thumbnail", "--local", "--edge", "40", "camera.stripped.jpg", "-o", "small.jpg"]);
    let small = image::load_from_memory(&desk.read("small.jpg")).expect("a JPEG");
    assert_eq!((small.width(), small.height()), (30, 40), "which side is up was kept");
    desk.file("scan.tif", &photo(ImageFormat::Tiff));
    ends(&desk.run(&["strip", "--local", "scan.tif"]), 1, &["TIFF"]);
}

#[test]
fn what_cannot_be_written_is_refused_before_anything_is_read() {
    let desk = Desk::new();
    desk.file("there.png", b"mine");
    let commands = [&["hide", "--text", "x"][..], &["thumbnail", "--edge", "9"], &["strip"]];
    let mut cases = vec![
        ("there.png", "there.png exists"),
        ("no/a.png", "there is no folder no"),
        (".", "it is a folder"),
    ];
    if cfg!(target_os = "linux") {
        // Where nobody can make a file, not even root.
        cases.push(("/proc/a.png", "/proc/a.png"));
    }
    for command in commands {
        for (out, words) in &cases {
            // There is no such picture, and there is no node: neither is looked for.
            let answer = desk.run(&[command, &["missing.png", "-o", out]].concat());
            ends(&answer, 1, &["error: ", words]);
            assert!(!answer.stderr.contains("missing.png"), "{answer:?}");
        }
        let answer = desk.run(&[command, &["missing.png", "-o", "there.png", "--force"]].concat());
        ends(&answer, 1, &["missing.png"]);
    }
    assert_eq!(desk.read("there.png"), b"mine");
    // Beside the picture too, where its name is sure beforehand.
    desk.file("camera.jpg", &photo(ImageFormat::Jpeg));
    for (name, command) in [
        ("photo.hidden.png", commands[0]),
        ("camera.thumb.jpg", commands[1]),
        ("photo.stripped.png", commands[2]),
    ] {
        desk.file(name, b"mine");
        let image = if name.starts_with("camera") { "camera.jpg" } else { "photo.png" };
        ends(&desk.run(&[command, &[image]].concat()), 1, &[name, "exists", "--force"]);
        assert_eq!(desk.read(name), b"mine");
    }
    let answer = desk.run(&["thumbnail", "--edge", "9", "camera.jpg", "-o", "small.png"]);
    ends(&answer, 2, &["the kind .jpg"]);
    let hidden = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with('.');
    let left: Vec<_> =
        fs::read_dir(desk.dir.path()).expect("listed").map(|e| e.expect("one").file_name()).collect();
    assert!(!left.iter().any(|name| hidden(name)), "{left:?}");
}

#[test]
fn an_edge_that_cannot_be_is_a_usage_error_with_what_can() {
    let desk = Desk::new();
    for edge in ["0", "8193", "9000", "-1"] {
        for image in ["photo.png", "missing.png"] {
            let answer = desk.run(&["thumbnail", "--local", "--edge", edge, image]);
            ends(&answer, 2, &["error: "]);
            assert!(edge == "-1" || answer.stderr.contains("1..=8192"), "{answer:?}");
        }
    }
    desk.ok(&["thumbnail", "--local", "--edge", "8192", "photo.png"]);
}

#[test]
fn a_bad_picture_is_told_at_once_and_local_is_not_said_to_help() {
    let desk = Desk::new();
    desk.file("text.png", b"hello");
    desk.file("moving.gif", &moving_gif());
    desk.file("scan.tif", &photo(ImageFormat::Tiff));
    let thumbnail = ["thumbnail", "--edge", "9"];
    for (args, name, words) in [
        (&thumbnail[..], "text.png", "not a picture"),
        (&thumbnail, "moving.gif", "animated"),
        (&["strip"], "text.png", "not a picture"),
        (&["strip"], "scan.tif", "TIFF"),
        (&["hide", "--text", "x"], "text.png", "not a picture"),
    ] {
        let answer = desk.run(&[args, &[name]].concat());
        ends(&answer, 1, &[name, words]);
        assert!(!answer.stderr.contains("--local"), "{answer:?}");
    }
}

#[test]
fn without_a_node_the_work_is_refused_and_local_is_named() {
    let desk = Desk::new();
    for args in [&["hide", "--text", "x"][..], &["thumbnail", "--edge", "9"], &["strip"]] {
        ends(&desk.run(&[args, &["photo.png"]].concat()), 1, &["--local"]);
    }
}

#[test]
fn a_result_is_stored_as_the_users_own_object() {
    let cluster = Cluster::start(1);
    let image = cluster.file("photo.png", &photo(ImageFormat::Png));
    let out = cluster.ok(&["hide", "--local", "--seal", "--text", "kept", text(&image), "--store=kept.png"]);
    assert!(out.contains("stored as kept.png version 1"), "{out}");
    assert!(!Path::new(&image).with_file_name("photo.hidden.png").exists(), "no file without -o");
    let bytes = cluster.get("kept.png").expect("it is stored");
    let back = cluster.file("back.png", &bytes);
    assert_eq!(cluster.ok(&["reveal", text(&back)]), "kept");
    // By a node, and under the name of the file that is not written.
    let nameless = ["hide", "--local", "--text", "kept", text(&image), "-o", "-", "--store"];
    ends(&cluster.run(&nameless), 2, &["standard output", "--store=NAME"]);
    let lossy = ["hide", "--local", "--text", "kept", text(&image), "--store=kept.jpg"];
    ends(&cluster.run(&lossy), 2, &["JPEG", "--store=kept.png"]);
    let out = cluster.ok(&["thumbnail", "--edge", "20", text(&image), "--store"]);
    assert!(out.contains("stored as photo.thumb.jpg version 1"), "{out}");
    let out = cluster.ok(&["strip", "--local", text(&image), "--store=bare.png"]);
    assert!(out.contains("stored as bare.png version 1"), "{out}");
    for (name, written) in [("photo.thumb.jpg", "photo.thumb.jpg"), ("bare.png", "photo.stripped.png")] {
        assert!(cluster.get(name).is_some_and(|bytes| image::guess_format(&bytes).is_ok()), "{name}");
        assert!(!Path::new(&image).with_file_name(written).exists(), "no file without -o");
    }
    ends(&cluster.run(&["strip", "--local", text(&image), "--store=/"]), 2, &["--store=NAME"]);
}
