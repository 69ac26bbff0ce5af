//! What model calls cost and how long they took.

use serde::{Deserialize, Serialize};

/// Tokens of one or several model calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Tokens read, cached ones included.
    pub input_tokens: u64,
    /// Tokens written, reasoning included.
    pub output_tokens: u64,
    /// The provider's own total, or the sum of both.
    pub total_tokens: u64,
    /// Of the input, tokens read from a prompt cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_read_tokens: u64,
    /// Of the input, tokens written to a prompt cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_write_tokens: u64,
    /// Of the output, tokens spent reasoning.
    #[serde(skip_serializing_if = "is_zero")]
    pub reasoning_tokens: u64,
}

// The signature is serde's.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "skip_serializing_if passes a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Usage {
    /// Whether nothing was used.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// What was used since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.saturating_sub(earlier.input_tokens),
            output_tokens: self.output_tokens.saturating_sub(earlier.output_tokens),
            total_tokens: self.total_tokens.saturating_sub(earlier.total_tokens),
            cache_read_tokens: self.cache_read_tokens.saturating_sub(earlier.cache_read_tokens),
            cache_write_tokens: self.cache_write_tokens.saturating_sub(earlier.cache_write_tokens),
            reasoning_tokens: self.reasoning_tokens.saturating_sub(earlier.reasoning_tokens),
        }
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.total_tokens += other.total_tokens;
        self.cache_read_tokens += other.cache_read_tokens;
        self.cache_write_tokens += other.cache_write_tokens;
        self.reasoning_tokens += other.reasoning_tokens;
    }
}

/// What several models cost: tokens by (model id, provider), in order of first use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Spent(pub Vec<((String, String), Usage)>);

impl Spent {
    /// Whether nothing was used.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what `model` used.
    pub fn add(&mut self, model: (String, String), used: Usage) {
        match self.0.iter_mut().find(|(known, _)| *known == model) {
            Some((_, usage)) => *usage += used,
            None => self.0.push((model, used)),
        }
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: &Self) {
        other.0.iter().for_each(|(model, used)| self.add(model.clone(), *used));
    }

    /// What was used since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before =
            |model| earlier.0.iter().find(|(known, _)| known == model).map(|(_, used)| *used).unwrap_or_default();
        let rest = self.0.iter().map(|(model, used)| (model.clone(), used.since(before(model))));
        Self(rest.filter(|(_, used)| !used.is_zero()).collect())
    }

    /// Tokens of all models.
    pub fn total(&self) -> Usage {
        let mut total = Usage::default();
        self.0.iter().for_each(|(_, used)| total += *used);
        total
    }
}
