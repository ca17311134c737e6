//! Words for people: sizes, times, tables, and text made safe for a terminal.
//!
//! Pure: everything that depends on the moment gets it as an argument.

use std::path::Path;

/// Removes what could steer a terminal: control characters; what [`upright`] writes out is written out. Line
/// ends and tabs stay.
pub fn sanitised(text: &str) -> String {
    let hostile = |c: char| c.is_control() && c != '\n' && c != '\t';
    upright(text).chars().map(|c| if hostile(c) { '\u{fffd}' } else { c }).collect()
}

/// Writes out the characters that turn or break the text around them, as `\u{202e}`: marks, embeddings,
/// overrides and isolates of the Unicode Bidirectional Algorithm (UAX 9), and the separators of lines and
/// paragraphs. They are no control characters, so a name may have them; but a line of text must not read as
/// another, wherever it is read.
pub fn upright(text: &str) -> String {
    written_out(text, |c| {
        let is_mark = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}');
        is_mark || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    })
}

/// A file of this machine in a line of text. No name in a vault has a control character, but the name of a
/// file may have any, a line end too: here they are written out, as `\n` or `\u{1b}`.
pub fn path(path: &Path) -> String {
    written_out(&path.display().to_string(), char::is_control)
}

fn written_out(text: &str, is_hostile: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hostile(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// A size as people read it: `999 B`, `3.4 MB`, `120 GB` (powers of 1000).
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = 0;
    // 999.5 would be printed as 1000: that is the next unit.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = usize::from(value < 99.95);
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// How long something took: `41 ms`, `1.2 s`, `2 min 5 s`, `3 h 10 min`.
pub fn duration(ms: u64) -> String {
    let s = ms / 1000;
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", s, ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

/// How long ago: `just now`, `5 min ago`, `3 days ago`; a moment ahead of ours is `just now` too.
pub fn ago(unix_ms: u64, now_unix_ms: u64) -> String {
    let s = now_unix_ms.saturating_sub(unix_ms) / 1000;
    let (count, unit) = match s {
        0..5 => return "just now".into(),
        5..60 => (s, "s"),
        60..3_600 => (s / 60, "min"),
        3_600..86_400 => (s / 3600, "h"),
        _ => (s / 86_400, if s < 2 * 86_400 { "day" } else { "days" }),
    };
    format!("{count} {unit} ago")
}

/// A moment, in UTC: `2026-11-20 09:17:03 UTC`. Days to date after Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms".
pub fn moment(unix_ms: u64) -> String {
    let (days, second) = (unix_ms / 86_400_000, unix_ms / 1000 % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02} UTC", second % 60)
}

/// `1 node`, `3 nodes`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Rows as columns, two spaces apart, the last column ragged. Widths count characters, not bytes.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    // Before it is measured.
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| upright(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = std::iter::once(&head).chain(&rows).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    std::iter::once(&head).filter(|head| head.iter().any(|h| !h.is_empty())).chain(&rows).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short_and_change_unit_in_time() {
        for (bytes, words) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (3_400_000, "3.4 MB"),
            (99_949, "99.9 kB"),
            (99_950, "100 kB"),
            (999_499, "999 kB"),
            (999_500, "1.0 MB"),
            (999_999, "1.0 MB"),
            (123_456_789, "123 MB"),
            (64 << 30, "68.7 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(size(bytes), words, "{bytes}");
        }
    }

    #[test]
    fn times_are_read_at_a_glance() {
        for (ms, words) in [
            (0, "0 ms"),
            (41, "41 ms"),
            (1_234, "1.2 s"),
            (59_999, "59.9 s"),
            (125_000, "2 min 5 s"),
            (11_400_000, "3 h 10 min"),
        ] {
            assert_eq!(duration(ms), words);
        }
        let now = 10 * 86_400_000;
        for (then, words) in [
            (now + 5, "just now"),
            (now - 7_000, "7 s ago"),
            (now - 300_000, "5 min ago"),
            (now - 86_400_000, "1 day ago"),
            (0, "10 days ago"),
        ] {
            assert_eq!(ago(then, now), words);
        }
    }

    #[test]
    fn moments_are_dates() {
        for (unix_ms, words) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00 UTC"),
            (1_795_166_223_000, "2026-11-20 09:17:03 UTC"),
            (4_102_444_799_000, "2099-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(moment(unix_ms), words);
        }
    }

    #[test]
    fn nothing_that_steers_a_terminal_gets_through() {
        assert_eq!(sanitised("a\u{1b}[31mb\u{7}\rc\u{202e}d"), "a\u{fffd}[31mb\u{fffd}\u{fffd}c\\u{202e}d");
        assert_eq!(upright("a\u{2066}b\u{2069}\u{202a}"), "a\\u{2066}b\\u{2069}\\u{202a}");
        assert_eq!(upright("\u{5d0}\u{200f} bär"), "\u{5d0}\\u{200f} bär");
        for mark in ['\u{61c}', '\u{200e}', '\u{2028}', '\u{2029}'] {
            assert_eq!(upright(&format!("a{mark}b")), format!("a{}b", mark.escape_unicode()));
        }
        assert_eq!(path(Path::new("a\nb\u{1b}[31m/bär.png")), "a\\nb\\u{1b}[31m/bär.png");
        assert_eq!(sanitised("bär\tund\nzeile"), "bär\tund\nzeile");
    }

    #[test]
    fn a_table_lines_up_and_has_no_trailing_spaces() {
        let rows = vec![vec!["ä".into(), "1".into()], vec!["longer".into(), String::new()]];
        assert_eq!(table(&["name", "n"], &rows), ["name    n", "ä       1", "longer"]);
        assert_eq!(table(&["", ""], &rows), ["ä       1", "longer"]);
    }
}
