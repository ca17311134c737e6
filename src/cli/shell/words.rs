//! A line of the shell as words: quotes and backslashes as people know them from other shells, and nothing
//! else.

/// Why a line is not words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WordsError {
    /// A quote is never closed.
    #[error("a quote is opened and never closed")]
    OpenQuote,
    /// A backslash ends the line.
    #[error("a backslash ends the line")]
    LoneBackslash,
}

/// Cuts a line at spaces. `'…'` is taken as it is; in `"…"` a backslash keeps `"` and `\`; outside it keeps
/// any character. An empty pair of quotes is an empty word.
///
/// # Errors
/// [`WordsError`].
pub(super) fn words(line: &str) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '\'' | '"' => quoted(c, &mut rest, word.get_or_insert_default())?,
            '\\' => word.get_or_insert_default().push(rest.next().ok_or(WordsError::LoneBackslash)?),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn quoted(quote: char, rest: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), WordsError> {
    loop {
        match rest.next().ok_or(WordsError::OpenQuote)? {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => match rest.next().ok_or(WordsError::OpenQuote)? {
                c @ ('"' | '\\') => word.push(c),
                c => word.extend(['\\', c]),
            },
            c => word.push(c),
        }
    }
}

/// A word so that [`words`] reads it as one.
pub(super) fn escaped(word: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '\'' | '"' | '\\');
    word.chars().fold(String::new(), |mut text, c| {
        if !plain(c) {
            text.push('\\');
        }
        text.push(c);
        text
    })
}

/// Where the last word of a line begins, in bytes.
pub(super) fn last_word_start(line: &str) -> usize {
    let (mut start, mut quote, mut kept) = (0, None, false);
    for (at, c) in line.char_indices() {
        match (quote, c) {
            _ if kept => kept = false,
            (None | Some('"'), '\\') => kept = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, c) if c.is_whitespace() => start = at + c.len_utf8(),
            _ => {}
        }
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_at_spaces_outside_quotes() {
        for (line, expected) in [
            ("", vec![]),
            ("  ls  ", vec!["ls"]),
            ("upload 'my photo.png' x", vec!["upload", "my photo.png", "x"]),
            ("a\"b c\"d", vec!["ab cd"]),
            ("a\\ b \"\\\"\\x\"", vec!["a b", "\"\\x"]),
            ("ls ''", vec!["ls", ""]),
            ("'a\\'", vec!["a\\"]),
        ] {
            assert_eq!(words(line), Ok(expected.into_iter().map(str::to_owned).collect()), "{line}");
        }
        assert_eq!(words("a 'b"), Err(WordsError::OpenQuote));
        assert_eq!(words("a \"b\\"), Err(WordsError::OpenQuote));
        assert_eq!(words("a\\"), Err(WordsError::LoneBackslash));
    }

    #[test]
    fn an_escaped_word_is_read_as_one() {
        for word in ["plain", "two words", "it's", "a\\b", "\"q\"", "ä\u{a0}b"] {
            assert_eq!(words(&escaped(word)), Ok(vec![word.to_owned()]), "{word}");
        }
    }

    #[test]
    fn the_last_word_begins_after_the_last_space_that_cuts() {
        for (line, start) in
            [("", 0), ("up", 0), ("get ", 4), ("get a\\ b", 4), ("get 'a b", 4), ("get 'a' b", 8)]
        {
            assert_eq!(last_word_start(line), start, "{line}");
        }
    }
}
