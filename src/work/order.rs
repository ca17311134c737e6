//! What is to be done with a picture. Plain data, which never shows what is to be hidden.

use std::fmt;

use zeroize::Zeroizing;

use crate::model::task::TaskKind;

/// What is to be done with one picture.
#[derive(Clone, PartialEq, Eq)]
pub enum Order {
    /// Hide bytes in it; the answer is a PNG.
    Hide {
        /// Where the bytes go.
        layout: Layout,
        /// The bytes, perhaps sealed.
        payload: Zeroizing<Vec<u8>>,
        /// What to do about an animated picture.
        frames: Frames,
    },
    /// Make a small picture of it; the answer is a JPEG, or a PNG if it has transparent places.
    Thumbnail {
        /// Its longest edge in pixels, if the picture is larger.
        edge_px: u32,
        /// What to do about an animated picture.
        frames: Frames,
    },
    /// Take its metadata away; the answer has its format and its pixels.
    Strip,
}

/// Where hidden bytes go.
#[derive(Clone, PartialEq, Eq)]
pub enum Layout {
    /// Row by row behind a length, as other tools do it.
    Plain,
    /// All over the picture, behind a header.
    Scattered {
        /// For this picture alone.
        seed: Zeroizing<[u8; 32]>,
        /// Stands row by row from the first sample on.
        header: Vec<u8>,
    },
}

/// What to do about an animated picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Frames {
    /// Refuse it: all frames but one would be lost.
    #[default]
    Single,
    /// Take its first frame.
    First,
}

impl Order {
    /// Its kind by name: a node that does not know the name says so.
    pub fn kind(&self) -> TaskKind {
        let name = match self {
            Self::Hide { .. } => "hide",
            Self::Thumbnail { .. } => "thumbnail",
            Self::Strip => "strip",
        };
        TaskKind(name.into())
    }

    /// The kinds of tasks that can be run here, by name.
    pub const KINDS: [&str; 3] = ["hide", "thumbnail", "strip"];
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hide { layout, payload, frames } => {
                write!(f, "Hide({layout:?}, {} bytes, {frames:?})", payload.len())
            }
            Self::Thumbnail { edge_px, frames } => write!(f, "Thumbnail({edge_px} px, {frames:?})"),
            Self::Strip => f.write_str("Strip"),
        }
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "Plain",
            Self::Scattered { .. } => "Scattered(hidden)",
        })
    }
}
