//! Where the bytes of a put come from: opening a [`Source`], its length, and its name for a person.
//!
//! It only reads. Whether the bytes are a whole picture is judged elsewhere, while they stream by.

use std::{
    fs::{self, File},
    io::{self, Cursor, Read},
    path::Path,
    sync::Arc,
};

use super::{
    structure::{Format, ReadSeek},
    thumbnail,
};
use crate::{
    client::{Error, types::Source},
    model::limits,
};

/// Opens it for one reading from start to end. Standard input is taken as it comes, once.
///
/// # Errors
/// [`Error::File`], as the file system says.
pub fn open(source: &Source) -> Result<Box<dyn Read>, Error> {
    Ok(match source {
        Source::Path(path) => Box::new(open_file(path)?),
        Source::Stdin => Box::new(io::stdin().lock()),
        Source::Memory(bytes) => Box::new(Cursor::new(Arc::clone(bytes))),
    })
}

/// Opens it again, to be read from any place; none for what has gone by.
pub fn reopen(source: &Source) -> Option<Box<dyn ReadSeek>> {
    match source {
        Source::Path(path) => open_file(path).ok().map(|file| Box::new(file) as Box<dyn ReadSeek>),
        Source::Memory(bytes) => Some(Box::new(Cursor::new(Arc::clone(bytes)))),
        Source::Stdin => None,
    }
}

/// Its length in bytes, if that is known before it is read. A file may change until then.
pub fn length(source: &Source) -> Option<u64> {
    match source {
        Source::Path(path) => fs::metadata(path).ok().map(|about| about.len()),
        Source::Memory(bytes) => Some(bytes.len() as u64),
        Source::Stdin => None,
    }
}

/// What a person calls it.
pub fn describe(source: &Source) -> String {
    match source {
        Source::Path(path) => path.display().to_string(),
        Source::Stdin => "standard input".into(),
        Source::Memory(_) => "the bytes in memory".into(),
    }
}

/// What is kept of an input that goes by once, as long as it may be a picture with a thumbnail. Bounded by
/// [`limits::INPUT_KEPT_BYTES_MAX`]: of a longer one nothing is kept.
#[derive(Debug, Default)]
pub struct Kept {
    bytes: Vec<u8>,
    state: Keeping,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Keeping {
    /// It can be read again, or is of no use.
    #[default]
    Nothing,
    /// Nothing has come so far.
    Waiting,
    Picture,
}

impl Kept {
    /// Nothing so far, and nothing ever of what can be read again.
    pub fn of(source: &Source) -> Self {
        let state = if matches!(source, Source::Stdin) { Keeping::Waiting } else { Keeping::Nothing };
        Self { bytes: Vec::new(), state }
    }

    /// Takes note of the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.state == Keeping::Waiting {
            self.state = if Format::of(bytes).is_some() { Keeping::Picture } else { Keeping::Nothing };
        }
        if self.bytes.len() + bytes.len() > limits::INPUT_KEPT_BYTES_MAX {
            *self = Self::default();
        }
        if self.state == Keeping::Picture {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// All that came, if it was kept.
    pub fn whole(&self) -> Option<&[u8]> {
        (self.state == Keeping::Picture).then_some(&self.bytes)
    }
}

/// The bytes of a small picture of it; none if it is no picture that decodes, or has gone by unkept.
pub fn thumbnail(source: &Source, kept: &Kept) -> Option<Vec<u8>> {
    let made = match source {
        Source::Path(path) => thumbnail::of_file(path),
        Source::Memory(bytes) => thumbnail::of_bytes(bytes),
        Source::Stdin => thumbnail::of_bytes(kept.whole()?),
    };
    match made {
        Ok(thumbnail) => Some(thumbnail.bytes),
        Err(reason) => {
            tracing::debug!("no thumbnail: {reason}");
            None
        }
    }
}

fn open_file(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|e| Error::File { path: path.display().to_string(), reason: e.to_string() })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn read(source: &Source) -> Vec<u8> {
        let mut bytes = Vec::new();
        open(source).expect("opens").read_to_end(&mut bytes).expect("is read");
        bytes
    }

    #[test]
    fn a_file_and_memory_are_read_alike_and_more_than_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.bin");
        fs::write(&path, b"twelve bytes").expect("written");
        for source in [Source::Path(path.clone()), Source::Memory(Arc::from(&b"twelve bytes"[..]))] {
            assert_eq!(length(&source), Some(12));
            assert_eq!(read(&source), b"twelve bytes");
            let mut again = reopen(&source).expect("opens again");
            again.seek(io::SeekFrom::Start(7)).expect("a place");
            let mut end = String::new();
            again.read_to_string(&mut end).expect("is read");
            assert_eq!(end, "bytes");
            assert_eq!(thumbnail(&source, &Kept::of(&source)), None);
        }
        assert_eq!(describe(&Source::Path(path.clone())), path.display().to_string());
    }

    #[test]
    fn what_is_not_there_is_named() {
        let source = Source::Path(PathBuf::from("no/such/file"));
        let Err(Error::File { path, .. }) = open(&source).map(|_| ()) else { panic!("it opened") };
        assert_eq!(path, "no/such/file");
        assert!(reopen(&source).is_none() && length(&source).is_none());
    }

    #[test]
    fn standard_input_is_of_unknown_length_and_goes_by_once() {
        assert!(length(&Source::Stdin).is_none() && reopen(&Source::Stdin).is_none());
        assert!(thumbnail(&Source::Stdin, &Kept::of(&Source::Stdin)).is_none());
    }

    #[test]
    fn only_a_picture_that_goes_by_is_kept_and_only_a_bounded_one() {
        let head = b"\x89PNG\r\n\x1a\n";
        let mut kept = Kept::of(&Source::Stdin);
        assert_eq!(kept.whole(), None);
        kept.push(head);
        kept.push(b"more");
        assert_eq!(kept.whole(), Some(&[&head[..], b"more"].concat()[..]));
        kept.push(&vec![0; limits::INPUT_KEPT_BYTES_MAX - head.len() - 4]);
        assert_eq!(kept.whole().map(<[u8]>::len), Some(limits::INPUT_KEPT_BYTES_MAX));
        kept.push(b"x");
        kept.push(head);
        assert_eq!((kept.whole(), kept.bytes.capacity()), (None, 0));
        let mut words = Kept::of(&Source::Stdin);
        words.push(b"only words");
        words.push(head);
        let mut file = Kept::of(&Source::Path(PathBuf::from("a.png")));
        file.push(head);
        assert!(words.whole().is_none() && file.whole().is_none());
    }
}
