//! Reads server-sent events from chunks that break anywhere.
//! Of the format (<https://html.spec.whatwg.org/multipage/server-sent-events.html>) only what servers here send: lines
//! end with LF or CRLF.

/// The longest line that is kept; what is longer is cut, since nobody here looks at its end.
const MAX_LINE: usize = 1 << 20;

/// What one stream has said so far.
#[derive(Debug, Default)]
pub struct Reader {
    line: Vec<u8>,
    event: String,
    data: String,
}

impl Reader {
    /// Takes a chunk and tells each event that it completes: its name and its data, either may be empty.
    pub fn push(&mut self, chunk: &[u8], mut tell: impl FnMut(&str, &str)) {
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.keep(&rest[..end]);
            rest = &rest[end + 1..];
            self.end_line(&mut tell);
        }
        self.keep(rest);
    }

    fn keep(&mut self, part: &[u8]) {
        let room = MAX_LINE - self.line.len().min(MAX_LINE);
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn end_line(&mut self, tell: &mut impl FnMut(&str, &str)) {
        let line = String::from_utf8_lossy(&self.line);
        let line = line.strip_suffix('\r').unwrap_or(&line);
        if line.is_empty() {
            if !self.event.is_empty() || !self.data.is_empty() {
                tell(&self.event, &self.data);
            }
            self.event.clear();
            self.data.clear();
        } else if let Some(name) = field(line, "event") {
            name.clone_into(&mut self.event);
        } else if let Some(data) = field(line, "data") {
            if !self.data.is_empty() {
                self.data.push('\n');
            }
            self.data.push_str(data);
        }
        self.line.clear();
    }
}

fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let value = line.strip_prefix(name)?.strip_prefix(':')?;
    Some(value.strip_prefix(' ').unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(chunks: &[&[u8]]) -> Vec<(String, String)> {
        let (mut reader, mut told) = (Reader::default(), Vec::new());
        for chunk in chunks {
            reader.push(chunk, |event, data| told.push((event.to_owned(), data.to_owned())));
        }
        told
    }

    fn pair(event: &str, data: &str) -> (String, String) {
        (event.to_owned(), data.to_owned())
    }

    #[test]
    fn events_are_told_wherever_the_chunks_break() {
        let text = b"event: RunContent\ndata: {\"a\":1}\n\n: a comment\n\ndata: [DONE]\r\n\r\n";
        let whole = vec![pair("RunContent", "{\"a\":1}"), pair("", "[DONE]")];
        assert_eq!(read(&[text]), whole);
        for cut in 0..text.len() {
            assert_eq!(read(&[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn lines_of_data_are_joined_and_an_open_event_is_not_told() {
        assert_eq!(read(&[b"data: one\ndata:two\nid: 7\n\nevent: Late\ndata: x\n"]), [pair("", "one\ntwo")]);
    }

    #[test]
    fn an_endless_line_takes_bounded_memory() {
        let mut reader = Reader::default();
        for _ in 0..3 {
            reader.push(&vec![b'x'; MAX_LINE], |_, _| ());
        }
        assert_eq!(reader.line.len(), MAX_LINE);
    }
}
