//! A chunk of a streamed answer, or an answer that was not streamed, as far as it is read here.

use std::borrow::Cow;

use daybook_domain::usage::Usage;
use serde::de::{IgnoredAny, MapAccess, SeqAccess};

use crate::lenient::{Lenient, Maybe, Words, objects};

objects! {
    /// All of it.
    Chunk<'de> {
        object: Cow<'de, str> = "object",
        id: Cow<'de, str> = "id",
        system_fingerprint: Cow<'de, str> = "system_fingerprint",
        choices: Choices<'de> = "choices",
        usage: Tokens = "usage",
        error: Fault = "error",
    }

    /// One of the answers.
    Choice<'de> {
        index: u64 = "index",
        /// What is new of it.
        delta: Message<'de> = "delta",
        /// The whole, when it is not streamed.
        message: Message<'de> = "message",
        finish_reason: Cow<'de, str> = "finish_reason",
        /// Where Moonshot puts it.
        usage: Tokens = "usage",
    }

    /// What the model says.
    Message<'de> {
        content: Content<'de> = "content",
        refusal: Cow<'de, str> = "refusal",
        // Servers that send thoughts under several names send the same ones.
        reasoning_content: Cow<'de, str> = "reasoning_content",
        reasoning: Cow<'de, str> = "reasoning",
        reasoning_text: Cow<'de, str> = "reasoning_text",
        audio: Audio<'de> = "audio",
        tool_calls: Vec<Call<'de>> = "tool_calls",
    }

    /// What it says aloud.
    Audio<'de> {
        transcript: Cow<'de, str> = "transcript",
    }

    /// A piece of content.
    Part<'de> {
        kind: Cow<'de, str> = "type",
        text: Cow<'de, str> = "text",
        refusal: Cow<'de, str> = "refusal",
        /// Mistral's thoughts.
        thinking: Content<'de> = "thinking",
    }

    /// A tool call, or a fragment of one.
    Call<'de> {
        index: u64 = "index",
        id: Words<'de> = "id",
        kind: Cow<'de, str> = "type",
        function: Function<'de> = "function",
    }

    /// The tool of a call.
    Function<'de> {
        name: Cow<'de, str> = "name",
        /// Some servers write them as an object.
        arguments: Words<'de> = "arguments",
    }

    /// How many tokens it took.
    Tokens {
        input: u64 = "prompt_tokens",
        output: u64 = "completion_tokens",
        total: u64 = "total_tokens",
        of_input: Details = "prompt_tokens_details",
        of_output: Details = "completion_tokens_details",
        /// Mistral's count.
        num_cached_tokens: u64 = "num_cached_tokens",
        /// DeepSeek's count.
        prompt_cache_hit_tokens: u64 = "prompt_cache_hit_tokens",
    }

    /// How many of which kind.
    Details {
        cached: u64 = "cached_tokens",
        cache_write: u64 = "cache_write_tokens",
        audio: u64 = "audio_tokens",
        reasoning: u64 = "reasoning_tokens",
    }
}

/// The answers a chunk is about. Only the first is read on, if others were asked for at all.
#[derive(Default)]
pub(super) struct Choices<'de> {
    pub(super) first: Option<Choice<'de>>,
    /// Whether there is one at all.
    pub(super) any: bool,
    /// Whether one of them has its message as a whole.
    pub(super) whole: bool,
}

impl<'de> Lenient<'de> for Choices<'de> {
    fn array<A: SeqAccess<'de>>(mut array: A) -> Result<Option<Self>, A::Error> {
        let mut choices = Self::default();
        while let Some(Maybe(choice)) = array.next_element::<Maybe<Choice<'de>>>()? {
            choices.any = true;
            choices.whole |= choice.as_ref().is_some_and(|choice| choice.message.is_some());
            if choices.first.is_none() {
                choices.first = choice.filter(|choice| choice.index.is_none_or(|index| index == 0));
            }
        }
        Ok(Some(choices))
    }
}

/// A text, or the parts of one.
pub(super) enum Content<'de> {
    Text(Cow<'de, str>),
    Parts(Vec<Part<'de>>),
}

impl<'de> Lenient<'de> for Content<'de> {
    fn text(text: Cow<'de, str>) -> Option<Self> {
        Some(Self::Text(text))
    }

    fn array<A: SeqAccess<'de>>(array: A) -> Result<Option<Self>, A::Error> {
        Ok(Vec::array(array)?.map(Self::Parts))
    }

    fn object<A: MapAccess<'de>>(object: A) -> Result<Option<Self>, A::Error> {
        Ok(Part::object(object)?.map(|part| Self::Parts(vec![part])))
    }
}

/// What stands where an error would.
pub(super) enum Fault {
    /// A text, or an object without anything in it: some servers send one beside every choice.
    Vague,
    /// An error.
    Clear,
}

impl<'de> Lenient<'de> for Fault {
    fn text(text: Cow<'de, str>) -> Option<Self> {
        (!text.is_empty()).then_some(Self::Vague)
    }

    fn object<A: MapAccess<'de>>(mut object: A) -> Result<Option<Self>, A::Error> {
        let mut fault = Self::Vague;
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            fault = Self::Clear;
        }
        Ok(Some(fault))
    }
}

impl Chunk<'_> {
    /// Whether it is an error instead of, or beside, a part of an answer.
    pub(super) fn is_error(&self) -> bool {
        match self.error {
            None => false,
            Some(Fault::Vague) => !self.choices.as_ref().is_some_and(|choices| choices.any),
            Some(Fault::Clear) => true,
        }
    }

    /// Whether it is the whole answer. Several gateways do not say what it is.
    pub(super) fn is_whole(&self) -> bool {
        self.choices.as_ref().is_some_and(|choices| match self.object.as_deref() {
            Some(object) => object == "chat.completion",
            None => choices.whole,
        })
    }

    /// Whether it is a part of an answer at all.
    pub(super) fn is_part(&self) -> bool {
        self.choices.is_some() || self.usage.is_some() || self.object.as_deref() == Some("chat.completion.chunk")
    }
}

impl<'de> Message<'de> {
    /// More of its thoughts.
    pub(super) fn thoughts(&self) -> Option<&str> {
        let names = [&self.reasoning_content, &self.reasoning, &self.reasoning_text];
        names.into_iter().flatten().find(|text| !text.is_empty()).map(|text| &**text)
    }

    /// More of its words, when they are not in parts: a refusal is said in words too.
    pub(super) fn words(&self) -> Option<&str> {
        let content = match &self.content {
            Some(Content::Text(text)) => Some(text),
            Some(Content::Parts(_)) => return None,
            None => None,
        };
        let spoken = self.audio.as_ref().and_then(|audio| audio.transcript.as_ref());
        [content, self.refusal.as_ref(), spoken].into_iter().flatten().find(|text| !text.is_empty()).map(|text| &**text)
    }

    /// Its parts.
    pub(super) fn parts(&self) -> &[Part<'de>] {
        match &self.content {
            Some(Content::Parts(parts)) => parts,
            _ => &[],
        }
    }
}

impl Call<'_> {
    /// The provider's id of it. Some servers write one where they have none.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_ref().map(|id| &*id.0).filter(|id| !id.is_empty() && *id != "null")
    }

    /// The tool's name.
    pub(super) fn name(&self) -> Option<&str> {
        self.function.as_ref()?.name.as_deref().filter(|name| !name.is_empty())
    }

    /// More of the arguments.
    pub(super) fn arguments(&self) -> Option<&str> {
        self.function.as_ref()?.arguments.as_ref().map(|arguments| &*arguments.0).filter(|text| !text.is_empty())
    }

    /// Whether it is of a kind that was not offered.
    pub(super) fn is_foreign(&self) -> bool {
        self.kind.as_ref().is_some_and(|kind| !kind.is_empty() && kind != "function")
    }
}

impl Tokens {
    /// In the port's terms.
    pub(super) fn usage(&self) -> Usage {
        let of_input = |count: fn(&Details) -> Option<u64>| self.of_input.as_ref().and_then(count);
        let mut input_tokens = self.input.unwrap_or_default();
        // Sound is counted in the prompt or beside it: the total tells.
        let beside = input_tokens.saturating_add(of_input(|of| of.audio).unwrap_or_default());
        if self.input.is_some() && self.total == Some(beside.saturating_add(self.output.unwrap_or_default())) {
            input_tokens = beside;
        }
        let rest = || self.total.unwrap_or_default().saturating_sub(input_tokens);
        let output_tokens = self.output.unwrap_or_else(rest);
        let cached = of_input(|of| of.cached).or(self.num_cached_tokens).or(self.prompt_cache_hit_tokens);
        Usage {
            input_tokens,
            output_tokens,
            total_tokens: self.total.unwrap_or_else(|| input_tokens.saturating_add(output_tokens)),
            cache_read_tokens: cached.unwrap_or_default(),
            cache_write_tokens: of_input(|of| of.cache_write).unwrap_or_default(),
            reasoning_tokens: self.of_output.as_ref().and_then(|of| of.reasoning).unwrap_or_default(),
        }
    }
}
