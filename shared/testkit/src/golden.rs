//! Golden files: committed text that generated text must equal. `UPDATE_GOLDEN=1` writes the files instead of
//! comparing them; what changed is then reviewed like code.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Set to `1`, it makes [`assert_matches`] write the files.
pub const UPDATE_VARIABLE: &str = "UPDATE_GOLDEN";

/// Unchanged lines printed around a difference.
const CONTEXT_LINES: usize = 3;
/// Lines of each side printed of one difference; the rest is counted.
const PRINTED_LINES: usize = 30;

/// Panics with a diff unless the file holds exactly this text.
#[track_caller]
pub fn assert_matches(path: impl AsRef<Path>, actual: &str) {
    let update = std::env::var(UPDATE_VARIABLE).is_ok_and(|value| value == "1");
    if let Err(failure) = check(
        path.as_ref(),
        actual,
        if update { Mode::Write } else { Mode::Compare },
    ) {
        panic!("{failure}");
    }
}

/// What to do with the committed file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Compare,
    Write,
}

fn check(path: &Path, actual: &str, mode: Mode) -> Result<(), String> {
    let shown = path.display();
    let expected = match fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(format!("reading golden file {shown}: {error}")),
    };
    if expected.as_deref() == Some(actual) {
        return Ok(());
    }
    if mode == Mode::Write {
        return write(path, actual)
            .map_err(|error| format!("writing golden file {shown}: {error}"));
    }
    let difference = match expected {
        Some(expected) => diff(&expected, actual),
        None => format!(
            "the file does not exist; it should hold {} lines\n",
            actual.lines().count()
        ),
    };
    Err(format!(
        "{shown} differs from what the code produces now:\n{difference}run the same test with {UPDATE_VARIABLE}=1 to write the file, then review it"
    ))
}

fn write(path: &Path, actual: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, actual)
}

/// The lines between the common beginning and the common end, with a little of both.
fn diff(expected: &str, actual: &str) -> String {
    let old: Vec<&str> = expected.lines().collect();
    let new: Vec<&str> = actual.lines().collect();
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let tail = old[head..]
        .iter()
        .rev()
        .zip(new[head..].iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let old_changed = &old[head..old.len() - tail];
    let new_changed = &new[head..new.len() - tail];
    if old_changed.is_empty() && new_changed.is_empty() {
        return "the same lines, but other line ends or another last line end\n".to_owned();
    }
    let from = head.saturating_sub(CONTEXT_LINES);
    let after = &new[new.len() - tail..];
    let mut text = format!("@@ line {} @@\n", head + 1);
    push_lines(&mut text, ' ', &old[from..head]);
    push_lines(&mut text, '-', old_changed);
    push_lines(&mut text, '+', new_changed);
    push_lines(&mut text, ' ', &after[..after.len().min(CONTEXT_LINES)]);
    text
}

fn push_lines(text: &mut String, mark: char, lines: &[&str]) {
    for line in lines.iter().take(PRINTED_LINES) {
        text.push_str(&format!("{mark} {line}\n"));
    }
    if lines.len() > PRINTED_LINES {
        text.push_str(&format!(
            "{mark} ... and {} lines more\n",
            lines.len() - PRINTED_LINES
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_the_lines_and_the_way_to_regenerate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/SUBJECTS.md");
        check(&path, "one\ntwo\nthree\n", Mode::Write).unwrap();
        check(&path, "one\ntwo\nthree\n", Mode::Compare).unwrap();
        let failure = check(&path, "one\n2\nthree\n", Mode::Compare).unwrap_err();
        assert!(
            failure.contains("@@ line 2 @@\n  one\n- two\n+ 2\n  three\n"),
            "{failure}"
        );
        assert!(failure.contains("UPDATE_GOLDEN=1"), "{failure}");
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "one\ntwo\nthree\n",
            "comparing never writes"
        );
    }

    #[test]
    fn a_missing_file_is_a_difference() {
        let folder = tempfile::tempdir().unwrap();
        let failure = check(&folder.path().join("absent"), "one\n", Mode::Compare).unwrap_err();
        assert!(failure.contains("does not exist"), "{failure}");
    }

    #[test]
    fn a_missing_last_line_end_is_a_difference() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        check(&path, "one\n", Mode::Write).unwrap();
        let failure = check(&path, "one", Mode::Compare).unwrap_err();
        assert!(failure.contains("line end"), "{failure}");
    }
}
