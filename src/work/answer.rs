//! What a worker gives back: the new picture, or a sentence why there is none. One byte says which.

use super::{envelope, run};

/// What is said for a worker that came to no end; nothing is known of the picture then.
pub const WORKER_FAILED: &str = "the worker failed at it";
/// What is said of a new picture that nobody takes.
pub const TOO_LARGE_TO_SEND: &str = "the picture that came of it is too large to be sent";

const PICTURE: u8 = 1;
const SENTENCE: u8 = 0;

/// The longest sentence that is sent, in bytes.
const SENTENCE_BYTES_MAX: usize = 1024;

/// Opens an envelope, carries its order out, and writes down what came of it.
pub fn work(payload: &[u8]) -> Vec<u8> {
    let worked = envelope::open(payload).and_then(|(order, picture)| run(&order, picture));
    match worked {
        Ok(picture) if picture.len() < crate::model::limits::TASK_RESULT_BYTES_MAX => {
            let mut answer = Vec::with_capacity(1 + picture.len());
            answer.push(PICTURE);
            answer.extend_from_slice(&picture);
            answer
        }
        Ok(_) => failure(TOO_LARGE_TO_SEND),
        Err(error) => failure(&error.to_string()),
    }
}

/// An answer without a picture.
pub fn failure(sentence: &str) -> Vec<u8> {
    let end = sentence.floor_char_boundary(SENTENCE_BYTES_MAX);
    let mut answer = vec![SENTENCE];
    answer.extend_from_slice(&sentence.as_bytes()[..end]);
    answer
}

/// Reads an answer: the picture, or the sentence. None if it is no answer at all.
pub fn read(mut answer: Vec<u8>) -> Option<Result<Vec<u8>, String>> {
    match *answer.first()? {
        PICTURE => {
            answer.remove(0);
            Some(Ok(answer))
        }
        SENTENCE if answer.len() <= 1 + SENTENCE_BYTES_MAX => {
            let text = std::str::from_utf8(&answer[1..]).ok()?;
            let is_plain = !text.chars().any(char::is_control);
            is_plain.then(|| Err(text.to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_picture_or_a_sentence_and_nothing_else() {
        assert_eq!(read(failure("no")), Some(Err("no".into())));
        assert_eq!(read(vec![PICTURE, 7, 8]), Some(Ok(vec![7, 8])));
        let long = failure(&"ä".repeat(2000));
        assert_eq!(read(long).map(|answer| answer.map_err(|text| text.len())), Some(Err(1024)));
        for bad in [vec![], vec![2, 1], vec![SENTENCE, 0xff], vec![SENTENCE, 27]] {
            assert_eq!(read(bad), None);
        }
        assert!(matches!(read(work(&[1, 2, 3])), Some(Err(_))));
    }
}
