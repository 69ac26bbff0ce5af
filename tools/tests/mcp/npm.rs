//! The reference server from npm, by standard input and output.

use daybook_domain::media::MediaKind;
use daybook_tools::ToolSource as _;
use serde_json::json;

use super::*;

fn everything() -> McpOptions {
    let program = root().join("target/mcp-servers/node_modules/@modelcontextprotocol/server-everything/dist/index.js");
    assert!(program.is_file(), "{} is missing: run scripts/mcp-servers.sh first", program.display());
    McpOptions::command(["node".to_owned(), program.display().to_string(), "stdio".to_owned()])
}

#[tokio::test]
async fn the_reference_server_does_what_it_shows() {
    let source = source(everything());
    let tools = tools(&source).await;
    assert!(text(&named(&tools, "echo"), json!({"message": "hi"})).await.contains("hi"));
    assert!(text(&named(&tools, "get-sum"), json!({"a": 2, "b": 3})).await.contains('5'));
    let image = call(&named(&tools, "get-tiny-image"), json!({})).await.unwrap();
    assert_eq!(image.media.iter().map(|media| media.kind).collect::<Vec<_>>(), [MediaKind::Image]);
    let structured = text(&named(&tools, "get-structured-content"), json!({"location": "Chicago"})).await;
    assert!(serde_json::from_str::<Value>(&structured).unwrap().is_object(), "{structured}");
    let links = text(&named(&tools, "get-resource-links"), json!({"count": 2})).await;
    assert!(links.contains("://"), "{links}");

    let (context, texts) = shown();
    let arguments = json!({"duration": 1, "steps": 2}).as_object().cloned().unwrap();
    named(&tools, "trigger-long-running-operation").call(context, arguments).await.unwrap();
    assert!(texts.lock().unwrap().iter().any(|text| text.contains("of 2")), "{texts:?}");
    let fault = call(&named(&tools, "get-sum"), json!({"a": "x"})).await.unwrap_err();
    assert!(!fault.to_string().is_empty());
    source.close().await;
}
