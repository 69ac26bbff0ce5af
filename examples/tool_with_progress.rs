//! A tool that takes a while and tells how far it is.
//! Try it: `cargo run --example tool_with_progress`, then
//! `curl -N http://127.0.0.1:8000/agents/clerk/runs -F message='call import_orders {"count": 3}'`.

use std::time::Duration;

use daybook::{AgentDefinition, Builder, Daybook, Effect, FunctionTool, ToolContext, ToolError};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Import {
    /// How many orders to import.
    count: u32,
}

async fn import_orders(context: ToolContext, import: Import) -> Result<String, ToolError> {
    for order in 1..=import.count {
        if context.cancelled.is_cancelled() {
            return Err(ToolError::failed("cancelled"));
        }
        // Those who watch the run see it at once, as a `CustomEvent`; the model and the log never do.
        context.progress(format!("order {order} of {}", import.count));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(format!("{} orders imported", import.count))
}

fn server() -> Builder {
    // Importing the same order twice changes nothing, so after a crash the tool may be called again.
    let tool = FunctionTool::new("import_orders", "Imports the latest orders.", Effect::Idempotent, import_orders)
        .timeout(Duration::from_secs(600));
    Daybook::builder().tool(tool).agent(AgentDefinition::new("clerk").tool("import_orders"))
}

#[tokio::main]
async fn main() -> Result<(), daybook::Error> {
    server().build().await?.serve().await
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use daybook::{DemoModel, FrameBody};

    use super::*;

    #[tokio::test]
    async fn watchers_see_how_far_it_is_between_its_start_and_its_end() {
        // The user that PostgreSQL runs as must be able to enter it.
        let dir = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
        let server = server().model("scripted", Arc::new(DemoModel::new(Duration::ZERO)));
        let running = server.port(0).data_dir(dir.path().join("data")).build().await.unwrap().start();
        let mut events = running.agent("clerk").stream("call import_orders {\"count\": 3}").await.unwrap();
        let (mut seen, mut last) = (Vec::new(), None);
        while let Some(frame) = events.next().await {
            let frame = frame.unwrap();
            assert!(last.is_none_or(|last| frame.index == last + 1), "{last:?} then {}", frame.index);
            last = Some(frame.index);
            match &frame.body {
                FrameBody::ToolCallStarted { .. } => seen.push("started".to_owned()),
                FrameBody::ToolProgress { text, tool, .. } => seen.push(format!("{tool}: {text}")),
                FrameBody::ToolCallCompleted { tool } => seen.push(format!("{:?}", tool.outcome)),
                _ => {}
            }
        }
        let progress = |n| format!("import_orders: order {n} of 3");
        let end = "Some(Completed(\"3 orders imported\"))".to_owned();
        assert_eq!(seen, ["started".to_owned(), progress(1), progress(2), progress(3), end]);
        let run = running.agent("clerk").wait(&events.run_id).await.unwrap();
        assert!(run.content.contains("3 orders imported") && !run.content.contains("order 1"), "{}", run.content);
        running.shutdown().await.unwrap();
    }
}
