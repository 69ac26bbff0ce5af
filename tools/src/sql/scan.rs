//! Reads a query as PostgreSQL's lexer does, as far as is needed to know its words: where strings and comments end, which
//! names are called, and that nothing follows it. What could be read in two ways is refused.

/// What a text says that may be a query.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan<'a> {
    /// The query, without a semicolon at its end.
    pub(super) query: &'a str,
    /// The names that stand before an opening parenthesis, as PostgreSQL folds them.
    pub(super) called: Vec<String>,
    /// The names that stand behind a dot, and are not called: columns, or functions of a row (`t.f` is `f(t)`).
    pub(super) attributes: Vec<String>,
}

/// The longest query, in bytes.
const MAX_QUERY: usize = 100_000;
/// What PostgreSQL keeps of a longer name, in bytes.
const NAME_BYTES: usize = 63;
/// What a query begins with.
const QUERIES: [&str; 4] = ["select", "with", "values", "table"];

/// The query and the names that it calls.
///
/// # Errors
/// What is wrong with it, for the model.
pub(super) fn scan(text: &str) -> Result<Scan<'_>, String> {
    if text.len() > MAX_QUERY {
        return Err(format!("the query has {} bytes; {MAX_QUERY} are the most", text.len()));
    }
    if text.contains('\0') {
        return Err("the query contains U+0000".to_owned());
    }
    let mut words = Words { text, at: 0 };
    let (mut called, mut attributes, mut end, mut first) = (Vec::new(), Vec::new(), None, None);
    let mut before: Option<Word> = None;
    while let Some((start, word)) = words.next()? {
        if end.is_some() && word != Word::Semicolon {
            return Err("give one query at a time: nothing may follow the semicolon".to_owned());
        }
        match (&word, before) {
            (Word::Semicolon, _) => end = end.or(Some(start)),
            (Word::Open, Some(Word::Name(name))) if !called.contains(&name) => called.push(name),
            (Word::Name(name), Some(Word::Dot)) if !attributes.contains(name) => attributes.push(name.clone()),
            // The parts of a string in several lines are one string, whose rules are the first part's.
            (Word::Text, Some(Word::Text)) => {
                return Err("two strings stand side by side; join them by ||".to_owned());
            }
            _ => {}
        }
        if first.is_none() && word != Word::Open {
            first = Some(word.clone());
        }
        before = Some(word);
    }
    match first {
        Some(Word::Name(name)) if QUERIES.contains(&name.as_str()) => {}
        _ => return Err("only queries are run: the text must begin with SELECT, WITH, VALUES or TABLE".to_owned()),
    }
    // `TREAT(x AS f)` is read as the call `f(x)`.
    if called.iter().any(|name| name == "treat") {
        return Err("TREAT is not allowed; use CAST".to_owned());
    }
    Ok(Scan { query: text[..end.unwrap_or(text.len())].trim(), called, attributes })
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    /// A name or a key word, folded.
    Name(String),
    /// Any kind of string.
    Text,
    Open,
    Semicolon,
    Dot,
    /// Numbers, operators, other punctuation.
    Other,
}

struct Words<'a> {
    text: &'a str,
    at: usize,
}

impl Words<'_> {
    /// The next word and where it begins; none at the end.
    fn next(&mut self) -> Result<Option<(usize, Word)>, String> {
        self.skip_blank()?;
        let start = self.at;
        let Some(letter) = self.rest().chars().next() else { return Ok(None) };
        let word = match letter {
            '\'' => self.string(false)?,
            '"' => self.quoted_name()?,
            '$' => self.dollar()?,
            letter if begins_name(letter) => self.name()?,
            letter => {
                self.at += letter.len_utf8();
                match letter {
                    '(' => Word::Open,
                    ';' => Word::Semicolon,
                    '.' => Word::Dot,
                    _ => Word::Other,
                }
            }
        };
        Ok(Some((start, word)))
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn skip_blank(&mut self) -> Result<(), String> {
        loop {
            let rest = self.rest();
            if rest.starts_with([' ', '\t', '\n', '\r', '\x0b', '\x0c']) {
                self.at += 1;
            } else if rest.starts_with("--") {
                self.at += rest.find(['\n', '\r']).unwrap_or(rest.len());
            } else if rest.starts_with("/*") {
                self.comment()?;
            } else {
                return Ok(());
            }
        }
    }

    /// A comment, and the comments in it.
    fn comment(&mut self) -> Result<(), String> {
        let mut depth = 0_usize;
        loop {
            let rest = self.rest();
            if rest.starts_with("/*") {
                (self.at, depth) = (self.at + 2, depth + 1);
            } else if rest.starts_with("*/") {
                (self.at, depth) = (self.at + 2, depth.saturating_sub(1));
                if depth == 0 {
                    return Ok(());
                }
            } else {
                let Some(letter) = rest.chars().next() else { return Err("a comment is not closed".to_owned()) };
                self.at += letter.len_utf8();
            }
        }
    }

    /// A string from its quote on. Backslashes escape only in `E'...'`: the other kind is set off in our transactions.
    fn string(&mut self, escapes: bool) -> Result<Word, String> {
        self.at += 1;
        loop {
            let rest = self.rest();
            let mut letters = rest.chars();
            match (letters.next(), letters.next()) {
                (Some('\''), Some('\'')) => self.at += 2,
                (Some('\''), _) => {
                    self.at += 1;
                    return Ok(Word::Text);
                }
                (Some('\\'), Some(next)) if escapes => self.at += 1 + next.len_utf8(),
                (Some(letter), _) => self.at += letter.len_utf8(),
                (None, _) => return Err("a string is not closed".to_owned()),
            }
        }
    }

    /// A name in double quotes.
    fn quoted_name(&mut self) -> Result<Word, String> {
        self.at += 1;
        let mut name = String::new();
        loop {
            let Some(quote) = self.rest().find('"') else { return Err("a name in quotes is not closed".to_owned()) };
            name.push_str(&self.rest()[..quote]);
            self.at += quote + 1;
            if !self.rest().starts_with('"') {
                return Ok(Word::Name(cut(name)));
            }
            name.push('"');
            self.at += 1;
        }
    }

    /// A name, a key word, or the kind of the string that follows.
    fn name(&mut self) -> Result<Word, String> {
        let rest = self.rest();
        let end = rest.find(|letter| !continues_name(letter)).unwrap_or(rest.len());
        let name = rest[..end].to_ascii_lowercase();
        self.at += end;
        let after = self.rest();
        if name == "e" && after.starts_with('\'') {
            return self.string(true);
        }
        // Its letters are written as numbers; nobody needs it in a query, except to hide a name.
        if name == "u" && after.starts_with("&\"") {
            return Err("names as U&\"...\" are not allowed; write them with their letters".to_owned());
        }
        Ok(Word::Name(cut(name)))
    }

    /// `$tag$ ... $tag$`, or a parameter, which we have none of.
    fn dollar(&mut self) -> Result<Word, String> {
        let rest = &self.rest()[1..];
        let tag = rest.find('$').map(|end| &rest[..end]);
        let fits = |tag: &&str| {
            tag.is_empty()
                || tag.starts_with(begins_name) && tag.chars().all(|letter| letter != '$' && continues_name(letter))
        };
        let Some(tag) = tag.filter(fits) else {
            self.at += 1;
            return Ok(Word::Other);
        };
        let mark = format!("${tag}$");
        let inside = self.at + mark.len();
        match self.text[inside..].find(&mark) {
            Some(length) => self.at = inside + length + mark.len(),
            None => return Err(format!("the string that {mark} opens is not closed")),
        }
        Ok(Word::Text)
    }
}

fn begins_name(letter: char) -> bool {
    letter.is_ascii_alphabetic() || letter == '_' || !letter.is_ascii()
}

fn continues_name(letter: char) -> bool {
    begins_name(letter) || letter.is_ascii_digit() || letter == '$'
}

fn cut(mut name: String) -> String {
    name.truncate(name.floor_char_boundary(NAME_BYTES));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(text: &str) -> Vec<String> {
        scan(text).unwrap().called
    }

    #[test]
    fn the_names_that_are_called_are_found() {
        assert_eq!(called("SELECT Count(*), a.b ( 1 ), x FROM t"), ["count", "b"]);
        assert_eq!(called("select \"Pg_X\" /* (a( */ -- b(\n (1), \"a\"\"b\"(2)"), ["Pg_X", "a\"b"]);
        assert_eq!(called("select 'f(1)', $$g(2)$$, $a$ h($$) $a$, E'\\'i(3)', b'0'"), Vec::<String>::new());
        assert_eq!(called("select a$$, f(1) from x$$"), ["f"], "a dollar within a name opens nothing");
        assert_eq!(called("select 1e'\\' || f(' "), Vec::<String>::new());
        assert_eq!(called("select /* /* */ f( */ 1"), Vec::<String>::new());
        assert_eq!(called(&format!("select {}(1)", "x".repeat(70))), ["x".repeat(63)]);
        assert_eq!(called("select 'a\\', f(1), ''"), ["f"], "a backslash is itself");
        assert_eq!(called("select 1--1\n, f(1)"), ["f"]);
    }

    #[test]
    fn one_query_is_taken() {
        assert_eq!(scan(" select 1 ; -- end\n ;").unwrap().query, "select 1");
        for text in ["(select 1)", "WITH a AS (SELECT 1) TABLE a", "values (1)", "table x", "/* a */ select 1"] {
            assert!(scan(text).is_ok(), "{text}");
        }
        for text in [
            "",
            ";",
            "-- select",
            "select 1; select 2",
            "delete from x",
            "explain select 1",
            "\"a\"",
            "((delete",
            "select '",
            "select \"a",
            "select /* ",
            "select $$ a",
            "select U&\"a\"",
            "select u&\"\\0061\"(1)",
            "select 'a'\n'b'",
            "select E'a'\n'\\', f(1), '",
            "select treat(1 as f)",
            "select \0",
            "'select'",
        ] {
            assert!(scan(text).is_err(), "{text:?}");
        }
        assert!(scan(&"select ".repeat(20_000)).is_err());
    }
}
