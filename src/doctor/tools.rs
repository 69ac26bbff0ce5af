//! Whether the sources of tools answer. They are asked as at a start, and closed again.

use futures::future::join_all;

use super::Finding;
use crate::agent::built_in_tools;
use crate::definitions::Definitions;
use crate::sources::{SourceDefinition, names_of};

pub(super) async fn look(definitions: &Definitions) -> Vec<Finding> {
    join_all(definitions.sources.iter().map(one)).await
}

async fn one(source: &SourceDefinition) -> Finding {
    let (name, kind) = (&source.name, source.kind.word());
    match names_of(source, &built_in_tools()).await {
        Ok(tools) => Finding::ok("tools", format!("{name} ({kind}): {}", tools.join(", "))),
        Err(error) if source.optional => {
            let mend = "the server starts without its tools, and asks it again";
            Finding::warning("tools", error.to_string(), mend)
        }
        Err(error) => Finding::error("tools", &error),
    }
}
