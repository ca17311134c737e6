//! Where the bytes of a put come from: opening a [`Source`], its length, and its name for a person.
//!
//! It only reads. Whether the bytes are a whole picture is judged elsewhere, while they stream by.

use std::{
    fs::{self, File},
    io::{self, Cursor, Read},
    path::Path,
    sync::Arc,
};

use super::{structure::ReadSeek, thumbnail};
use crate::client::{Error, types::Source};

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

/// The bytes of a small picture of it; none if it is no picture that decodes, or has gone by.
pub fn thumbnail(source: &Source) -> Option<Vec<u8>> {
    let made = match source {
        Source::Path(path) => thumbnail::of_file(path),
        Source::Memory(bytes) => thumbnail::of_bytes(bytes),
        Source::Stdin => return None,
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
            assert_eq!(thumbnail(&source), None);
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
        assert!(thumbnail(&Source::Stdin).is_none());
    }
}
