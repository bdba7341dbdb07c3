//! Just enough reading of Rust to count lines and find words: comments and literals blanked, bodies of functions.

/// The text with the contents of comments, strings and characters made spaces; lines stay where they are.
pub(crate) fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
            continue;
        }
        out.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    out
}

/// Where the comment or literal that starts at `at` ends; `at` itself if none starts there.
fn literal_end(chars: &[char], at: usize) -> usize {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => find(chars, at, |c| c == '\n'),
        '/' if next == Some('*') => block_comment_end(chars, at),
        '"' => quoted_end(chars, at, '"'),
        '\'' => character_end(chars, at),
        'r' if !is_word(at.checked_sub(1).map(|before| chars[before]).filter(|&c| c != 'b' && c != 'c')) => {
            raw_string_end(chars, at)
        }
        _ => at,
    }
}

fn find(chars: &[char], from: usize, wanted: impl Fn(char) -> bool) -> usize {
    chars[from..].iter().position(|&c| wanted(c)).map_or(chars.len(), |offset| from + offset)
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    chars.len()
}

fn quoted_end(chars: &[char], start: usize, quote: char) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// A character literal; a lifetime or label is none.
fn character_end(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => quoted_end(chars, at, '\''),
        (Some(_), Some('\'')) => at + 3,
        _ => at,
    }
}

fn raw_string_end(chars: &[char], at: usize) -> usize {
    let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
    if chars.get(at + 1 + hashes) != Some(&'"') {
        return at;
    }
    let closing: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let body = at + 2 + hashes;
    let end = chars[body..].windows(closing.len()).position(|window| window == closing);
    end.map_or(chars.len(), |offset| body + offset + closing.len())
}

fn is_word(c: Option<char>) -> bool {
    c.is_some_and(|c| c.is_alphanumeric() || c == '_')
}

/// A function with a body: its name, and its lines from `fn` to the closing brace, from 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) first_line: usize,
    pub(crate) last_line: usize,
}

/// The functions of a blanked text, nested ones too.
pub(crate) fn functions(blanked: &str) -> Vec<Function> {
    words(blanked, "fn").into_iter().filter_map(|at| function_at(blanked, at)).collect()
}

fn function_at(blanked: &str, at: usize) -> Option<Function> {
    let after = blanked[at + 2..].trim_start();
    let name: String = after.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect();
    // `fn(u32)` is a type.
    if name.is_empty() {
        return None;
    }
    let body = body_start(&blanked[at..])? + at;
    let end = matching_brace(&blanked[body..])? + body;
    Some(Function { name, first_line: line_of(blanked, at), last_line: line_of(blanked, end) })
}

/// The brace that opens the body, if a semicolon does not end the declaration first.
fn body_start(declaration: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in declaration.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(at),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

fn matching_brace(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// Offsets at which `word` stands as a word of its own.
pub(crate) fn words(text: &str, word: &str) -> Vec<usize> {
    let stands_alone =
        |at: usize| !is_word(text[..at].chars().next_back()) && !is_word(text[at + word.len()..].chars().next());
    text.match_indices(word).map(|(at, _)| at).filter(|&at| stands_alone(at)).collect()
}

/// The line of an offset, from 1.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    1 + text[..offset].bytes().filter(|&b| b == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_are_blanked() {
        for (from, to) in [
            ("a // b\nc", "a     \nc"),
            ("/* x /* y */ z */w", "                 w"),
            (r#""a\"b" c"#, "       c"),
            (r##"r#"a"b"# c"##, "         c"),
            ("br\"x\"d", "b    d"),
            ("'a' 'b: '\\'' \"'\"", "    'b:         "),
            ("for x in r#fn {}", "for x in r#fn {}"),
            ("\"two\nlines\"", "    \n      "),
        ] {
            assert_eq!(blank(from), to, "{from}");
        }
    }

    #[test]
    fn functions_have_bodies() {
        let text = "fn a() { if x { y } }\ntrait T { fn b(); fn c(f: fn(u8), d: [u8; 3]) -> u8 {\n1 } }\n";
        let found = functions(&blank(text));
        let names: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.first_line, f.last_line)).collect();
        assert_eq!(names, [("a", 1, 1), ("c", 2, 3)]);
    }

    #[test]
    fn words_stand_alone() {
        assert_eq!(words("unsafe_code unsafe (unsafe)", "unsafe"), [12, 20]);
    }
}
