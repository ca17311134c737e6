//! The one way in and out of CBOR: arrays, canonical, bounded, nothing left over.
//!
//! Every format is a tuple whose first element is its version. Structs are arrays without field names, a
//! variant of an enum is `[index, fields...]`: there is no map. Decoding re-encodes and compares, so two
//! different byte strings never mean the same value and a signature covers what was read.

mod read;
mod write;

use serde::{Serialize, de::DeserializeOwned};

/// Why bytes were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Longer than the format allows.
    #[error("{len} bytes where at most {max} are allowed")]
    TooLong { len: usize, max: usize },
    /// Not CBOR of the expected shape, or not in its canonical form.
    #[error("malformed: {0}")]
    Malformed(String),
    /// A version that this program does not know.
    #[error("unknown version {0}")]
    Version(u64),
}

/// Encodes a value. Values of this crate always encode.
///
/// # Panics
/// If serialisation fails, which for plain data in memory is a bug.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    cbor4ii::serde::to_vec(Vec::new(), &write::AsArrays(value)).expect("plain data encodes into memory")
}

/// Decodes exactly one value of at most `max` bytes and refuses every other spelling of it.
///
/// # Errors
/// [`CodecError::TooLong`] or [`CodecError::Malformed`].
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, CodecError> {
    if bytes.len() > max {
        return Err(CodecError::TooLong { len: bytes.len(), max });
    }
    let mut reader = cbor4ii::serde::Deserializer::new(cbor4ii::core::utils::SliceReader::new(bytes));
    let value =
        T::deserialize(read::Reader(&mut reader)).map_err(|e| CodecError::Malformed(e.to_string()))?;
    if encode(&value) != bytes {
        return Err(CodecError::Malformed("not the canonical encoding".into()));
    }
    Ok(value)
}

/// Refuses every version but `known`.
///
/// # Errors
/// [`CodecError::Version`].
pub fn check_version(found: u64, known: u64) -> Result<(), CodecError> {
    if found == known { Ok(()) } else { Err(CodecError::Version(found)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    enum Shape {
        Unit,
        One(u64),
        Two(u64, Option<Inner>),
        Named { a: Vec<Shape>, b: Inner },
    }

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Inner {
        x: u64,
        y: String,
    }

    #[test]
    fn there_is_no_map_and_no_name_in_what_is_written() {
        let inner = || Inner { x: 7, y: "é".into() };
        let shapes = vec![
            Shape::Unit,
            Shape::One(300),
            Shape::Two(1, None),
            Shape::Two(1, Some(inner())),
            Shape::Named { a: vec![Shape::Unit, Shape::One(2)], b: inner() },
        ];
        let bytes = encode(&(1u64, &shapes));
        let expected = [
            0x82, 0x01, 0x85, 0x81, 0x00, 0x82, 0x01, 0x19, 0x01, 0x2c, 0x83, 0x02, 0x01, 0xf6, 0x83, 0x02,
            0x01, 0x82, 0x07, 0x62, 0xc3, 0xa9, 0x83, 0x03, 0x82, 0x81, 0x00, 0x82, 0x01, 0x02, 0x82, 0x07,
            0x62, 0xc3, 0xa9,
        ];
        assert_eq!(bytes, expected);
        assert_eq!(decode::<(u64, Vec<Shape>)>(&bytes, 1024), Ok((1, shapes)));
    }

    #[test]
    fn what_is_not_such_an_array_is_refused() {
        for bad in [
            vec![0x64, b'U', b'n', b'i', b't'],
            vec![0x80],
            vec![0x81, 0x09],
            vec![0x82, 0x00, 0x01],
            vec![0x81, 0x01],
            vec![0x83, 0x01, 0x02, 0x03],
            vec![0xa1, 0x00, 0x01],
            vec![0x82, 0x03, 0x80],
        ] {
            assert!(decode::<Shape>(&bad, 64).is_err(), "{bad:02x?}");
        }
        assert!(decode::<Inner>(&[0xa2, 0x61, b'x', 0x07, 0x61, b'y', 0x60], 64).is_err());
    }

    #[test]
    fn trailing_bytes_and_other_spellings_are_refused() {
        let good = encode(&(1u64, 7u64));
        assert_eq!(decode::<(u64, u64)>(&good, 16), Ok((1, 7)));
        let mut trailing = good.clone();
        trailing.push(0);
        assert!(matches!(decode::<(u64, u64)>(&trailing, 16), Err(CodecError::Malformed(_))));
        let long_form = [0x82, 0x01, 0x18, 0x07];
        assert!(matches!(decode::<(u64, u64)>(&long_form, 16), Err(CodecError::Malformed(_))));
        assert!(matches!(decode::<(u64, u64)>(&good, 2), Err(CodecError::TooLong { len: 3, max: 2 })));
    }
}
