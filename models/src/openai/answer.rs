//! The chunks of a streamed answer, of the many servers that claim to speak the protocol.

use serde_json::Value;

use super::chunk::{Call, Chunk, Content, Message};
use crate::answer::Answer;
use crate::lenient;
use crate::port::ModelError;
use crate::provider::{Ending, Heard, Reader, Unread};

/// Reads them.
#[derive(Default)]
pub(super) struct Chunks {
    /// The calls more may come of, in the order they began.
    open: Vec<Open>,
    begun: bool,
    finished: bool,
}

/// A call more may come of.
struct Open {
    index: Option<u64>,
    id: Option<String>,
    /// Its place in the answer, once it has a name.
    place: Option<usize>,
    /// Arguments that are not told yet: its name is still missing, or they may be a word for none.
    held: String,
    /// Of a kind that was not offered: nobody could answer it.
    foreign: bool,
}

impl Open {
    fn arguments<'a>(&'a self, answer: &'a Answer) -> &'a str {
        match self.place.and_then(|place| answer.call(place)) {
            Some(call) if !call.arguments.is_empty() => &call.arguments,
            _ => &self.held,
        }
    }

    /// Takes a fragment, and tells the answer what can be told.
    fn take(&mut self, fragment: &Call<'_>, answer: &mut Answer) {
        if let Some(id) = fragment.id() {
            self.id = Some(id.to_owned());
        }
        if let (None, Some(name)) = (self.place, fragment.name()) {
            self.place = Some(answer.start_call(self.id.as_deref(), name));
        }
        let more = fragment.arguments().unwrap_or_default();
        match self.place {
            Some(place) if answer.call(place).is_some_and(|call| !call.arguments.is_empty()) => {
                answer.arguments(place, more);
            }
            place => {
                // Some gateways write null before the arguments come.
                if self.held.trim() == "null" && !more.trim().is_empty() {
                    self.held.clear();
                }
                self.held.push_str(more);
                if let Some(place) = place
                    && !"null".starts_with(self.held.trim())
                {
                    answer.arguments(place, &std::mem::take(&mut self.held));
                }
            }
        }
    }

    /// Nothing more comes of it. A call that was never named is none.
    fn close(self, answer: &mut Answer) {
        if let Some(place) = self.place {
            answer.whole_arguments(place, if self.held.trim() == "null" { "" } else { &self.held });
        }
    }
}

/// Whether nothing is missing of `arguments`.
fn is_whole(arguments: &str) -> bool {
    // Most fragments end elsewhere, so that few are parsed.
    arguments.trim_end().ends_with('}') && matches!(serde_json::from_str(arguments), Ok(Value::Object(_)))
}

impl Chunks {
    /// Takes what is new; gives whether anything is.
    fn message(&mut self, message: &Message<'_>, answer: &mut Answer) -> bool {
        let mut news = false;
        if let Some(thoughts) = message.thoughts() {
            news = true;
            answer.reasoning(thoughts);
        }
        if let Some(words) = message.words() {
            news = true;
            answer.text(words);
        }
        for part in message.parts() {
            news = true;
            match part.kind.as_deref() {
                Some("text") | None => answer.text(part.text.as_deref().unwrap_or_default()),
                Some("refusal") => answer.text(part.refusal.as_deref().unwrap_or_default()),
                Some("thinking") => match &part.thinking {
                    Some(Content::Text(text)) => answer.reasoning(text),
                    Some(Content::Parts(parts)) => {
                        parts.iter().filter_map(|part| part.text.as_deref()).for_each(|text| answer.reasoning(text));
                    }
                    None => {}
                },
                Some(_) => {}
            }
        }
        for call in message.tool_calls.iter().flatten() {
            news = true;
            self.call(call, answer);
        }
        news
    }

    fn call(&mut self, fragment: &Call<'_>, answer: &mut Answer) {
        let at = self.open_for(fragment, answer).unwrap_or_else(|| {
            let foreign = fragment.is_foreign();
            self.open.push(Open { index: fragment.index, id: None, place: None, held: String::new(), foreign });
            self.open.len() - 1
        });
        if let Some(open) = self.open.get_mut(at).filter(|open| !open.foreign) {
            open.take(fragment, answer);
        }
    }

    /// The call `fragment` goes on with; none when it begins one.
    fn open_for(&mut self, fragment: &Call<'_>, answer: &mut Answer) -> Option<usize> {
        let (id, is_named) = (fragment.id(), fragment.name().is_some());
        if fragment.index.is_some() {
            let at = self.open.iter().position(|open| open.index == fragment.index)?;
            let open = &self.open[at];
            // Some servers number all calls alike and tell them apart by id, others make up an id for every fragment.
            let other = id.is_some() && open.id.is_some() && open.id.as_deref() != id;
            if other && !open.foreign && (is_named || is_whole(open.arguments(answer))) {
                self.open.remove(at).close(answer);
                return None;
            }
            return Some(at);
        }
        if id.is_some() {
            return self.open.iter().position(|open| open.id.as_deref() == id);
        }
        let open = self.open.last()?;
        let so_far = open.arguments(answer);
        let begins = (is_named || fragment.arguments().is_some())
            && (is_whole(so_far) || is_named && open.place.is_some() && so_far.trim().is_empty());
        (open.foreign || !begins).then_some(self.open.len() - 1)
    }

    /// Nothing more comes of the calls that `is_over` names.
    fn close(&mut self, answer: &mut Answer, is_over: impl Fn(&Open, &Answer) -> bool) {
        for open in std::mem::take(&mut self.open) {
            match is_over(&open, answer) {
                true => open.close(answer),
                false => self.open.push(open),
            }
        }
    }
}

impl Reader for Chunks {
    fn take(&mut self, frame: &str, answer: &mut Answer) -> Result<Heard, Unread> {
        let Some(chunk) = lenient::read::<Chunk<'_>>(frame)? else { return Ok(Heard::Nothing) };
        if chunk.is_error() {
            return Ok(Heard::Error(frame.to_owned()));
        }
        if !chunk.is_part() {
            return Ok(Heard::Nothing);
        }
        self.begun = true;
        answer.about(&[("id", chunk.id.as_deref()), ("system_fingerprint", chunk.system_fingerprint.as_deref())]);
        let is_whole_answer = chunk.is_whole();
        let choice = chunk.choices.and_then(|choices| choices.first).unwrap_or_default();
        if let Some(tokens) = chunk.usage.or(choice.usage) {
            answer.usage = tokens.usage();
        }
        if let Some(reason) = choice.finish_reason.filter(|reason| !reason.is_empty()) {
            self.finished = true;
            answer.finish = Some(reason.into_owned());
        }
        if is_whole_answer {
            let Some(mut message) = choice.message else {
                return Err(ModelError::Malformed("there is no message in it".to_owned()).into());
            };
            for (index, call) in (0..).zip(message.tool_calls.iter_mut().flatten()) {
                call.index = Some(index);
            }
            self.message(&message, answer);
            return Ok(self.done(answer));
        }
        let news = choice.delta.is_some_and(|delta| self.message(&delta, answer));
        // Text, thoughts and unfinished calls may still come, but what comes after this is another call.
        if matches!(answer.finish.as_deref(), Some("tool_calls" | "function_call")) {
            self.close(answer, |open, answer| is_whole(open.arguments(answer)));
        }
        Ok(if news { Heard::More } else { Heard::Nothing })
    }

    /// Not every server gives a reason before it.
    fn done(&mut self, answer: &mut Answer) -> Heard {
        self.close(answer, |_, _| true);
        Heard::End
    }

    /// Not every server says that it is done.
    fn closed(&mut self, answer: &mut Answer) -> Ending {
        if self.finished {
            self.done(answer);
            return Ending::Whole;
        }
        if self.begun { Ending::Broken } else { Ending::Foreign }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::port::ChatEvent;

    /// JSON in which what servers send and what they should not send meet.
    fn frame() -> impl Strategy<Value = Value> {
        let texts = [
            "",
            "chat.completion",
            "chat.completion.chunk",
            "stop",
            "tool_calls",
            "function",
            "text",
            "thinking",
            "null",
            "{}",
            "{\"a\":",
            "1}",
        ];
        let keys = [
            "object",
            "id",
            "choices",
            "usage",
            "error",
            "index",
            "delta",
            "message",
            "finish_reason",
            "content",
            "refusal",
            "reasoning",
            "audio",
            "tool_calls",
            "type",
            "text",
            "thinking",
            "function",
            "name",
            "arguments",
            "prompt_tokens",
            "total_tokens",
            "other",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            prop::sample::select(vec![json!(0), json!(1), json!(-1), json!(0.5), json!(u64::MAX)]),
            prop::sample::select(texts.map(Value::from).to_vec()),
        ];
        let any = leaf.prop_recursive(6, 60, 5, move |inner| {
            let object = prop::collection::vec((prop::sample::select(keys.to_vec()), inner.clone()), 0..6);
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(Value::from),
                object.prop_map(|fields| fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
            ]
        });
        let call = (prop::option::of(0_u64..3), any.clone(), any.clone(), any.clone()).prop_map(|(index, id, name, arguments)| {
            json!({"index": index, "id": id, "function": {"name": name, "arguments": arguments}})
        });
        let delta = (any.clone(), prop::collection::vec(call, 0..3))
            .prop_map(|(content, calls)| json!({"content": content, "tool_calls": calls}));
        let chunk = (delta, any.clone(), any.clone()).prop_map(
            |(delta, finish, usage)| json!({"choices": [{"delta": delta, "finish_reason": finish}], "usage": usage}),
        );
        prop_oneof![any, chunk]
    }

    proptest! {
        #[test]
        fn no_json_is_too_strange_and_pieces_add_up(frames in prop::collection::vec(frame(), 0..8)) {
            let (mut reader, mut answer) = (Chunks::default(), Answer::new(Instant::now()));
            for frame in frames {
                let heard = reader.take(&frame.to_string(), &mut answer);
                prop_assert!(!matches!(heard, Err(Unread::Json(_))), "{frame}: {heard:?}");
            }
            reader.done(&mut answer);
            let _ = answer.end();
            let (mut text, mut arguments) = (String::new(), BTreeMap::<usize, String>::new());
            while let Some(event) = answer.next() {
                match event {
                    ChatEvent::Text(piece) => text.push_str(&piece),
                    ChatEvent::ToolArguments { index, delta, .. } => arguments.entry(index).or_default().push_str(&delta),
                    ChatEvent::Done(whole) => {
                        prop_assert_eq!(&text, &whole.text);
                        let whole: Vec<_> = whole.tool_calls.into_iter().map(|call| call.arguments).collect();
                        prop_assert_eq!(arguments.values().cloned().collect::<Vec<_>>(), whole);
                    }
                    ChatEvent::Reasoning(_) | ChatEvent::ProviderData(_) => {}
                }
            }
        }
    }
}
