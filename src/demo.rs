//! The demo: two agents that need no configuration, and what to try with them.

use std::net::SocketAddr;

use daybook_domain::tool::Effect;
use daybook_tools::{FunctionTool, ToolContext, ToolError};

use crate::agent::AgentDefinition;
use crate::builder::Builder;

/// Adds the demo's agents. Their model is OpenAI's with `OPENAI_API_KEY`, and the scripted one without.
pub(crate) fn agents(builder: Builder) -> Builder {
    let first = AgentDefinition::new("my-agent")
        .name("My Agent")
        .description("Answers briefly, can calculate and knows the time.")
        .instruction("Be brief.")
        .history_runs(3)
        .tool("calculator")
        .tool("current_time");
    let second = AgentDefinition::new("assistant")
        .name("Assistant")
        .description("Talks, and remembers more of the conversation.")
        .history_runs(10);
    let careful = AgentDefinition::new("careful-agent")
        .name("Careful Agent")
        .description("Keeps notes, and asks a person before it writes one down.")
        .tool("write_note");
    let note =
        FunctionTool::new("write_note", "Writes a note into the session's state.", Effect::Idempotent, write_note);
    builder.tool(note.confirm()).agent(first).agent(second).agent(careful)
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Note {
    /// What to write down.
    text: String,
}

async fn write_note(context: ToolContext, note: Note) -> Result<String, ToolError> {
    let said = format!("noted: {}", note.text);
    context.set_state("note", note.text.into());
    std::future::ready(Ok(said)).await
}

/// What to type next.
pub(crate) fn what_to_try(address: SocketAddr, pid: u32) -> String {
    let runs = format!("http://{address}/agents/my-agent/runs");
    let careful = format!("http://{address}/agents/careful-agent/runs");
    format!(
        "
Daybook demo is ready at http://{address} (API: http://{address}/docs). Ctrl-C stops it.

1. Ask something, as alice in the conversation thread-42:
   curl -s {runs} -F message='calculate 2+3*4' -F user_id=alice -F session_id=thread-42 -F stream=false

2. Watch a long answer arrive:
   curl -sN {runs} -F message='slow 20' -F user_id=alice -F session_id=thread-42 -F stream=true

3. Kill it in the middle of 2, start it again, and take up the same run (its run_id is in every frame):
   kill -9 {pid}
   curl -sN {runs}/RUN_ID/resume -F session_id=thread-42

4. See a tool wait for your word, also across restarts; then answer with the RUN_ID and tool_call_id it tells:
   curl -s {careful} -F message='call write_note {{\"text\": \"milk\"}}' -F session_id=notes -F stream=false
   curl -s {careful}/RUN_ID/continue -F session_id=notes -F stream=false -F tools='[{{\"tool_call_id\": \"ID\", \"confirmed\": true}}]'

"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_things_to_try_fit_this_server() {
        let text = what_to_try("127.0.0.1:8123".parse().unwrap(), 4711);
        assert!(text.lines().count() <= 20, "short enough to be read");
        for word in ["http://127.0.0.1:8123/agents/my-agent/runs", "kill -9 4711", "slow 20", "stream=true"] {
            assert!(text.contains(word), "{word}");
        }
        assert_eq!(text.matches("user_id=alice").count(), 2);
        assert_eq!(text.matches("session_id=thread-42").count(), 3);
    }
}
