//! `read_result(result, offset, find)`: pages through results that were too long for the model.

use daybook_domain::long_result::READ_RESULT;
use daybook_domain::tool::Effect;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{FunctionTool, ToolContext, ToolError};

/// How much is read at once, in bytes: half of what a result may have before it is itself too long.
const PAGE: usize = 32 * 1024;

#[derive(Deserialize, JsonSchema)]
struct Place {
    /// The result's id, as it stands in the note between its beginning and its end.
    result: String,
    /// From which byte on; 0 when left out.
    #[serde(default)]
    offset: Option<u64>,
    /// Goes on to the first place where this text stands, from the offset on.
    #[serde(default)]
    find: Option<String>,
}

/// `read_result(result, offset, find)`: reads on in a result of a tool that was too long to be given whole. It reads what
/// its run and the earlier runs that the model sees have got from their tools, and nothing else.
pub fn read_result() -> FunctionTool {
    FunctionTool::new(
        READ_RESULT,
        "Reads a part of a tool's result that was too long to be given whole: up to 32 KiB from an offset on, or from \
         where a text is found.",
        Effect::Pure,
        |context: ToolContext, place: Place| async move {
            let unknown = || {
                let fault =
                    format!("there is no long result {:?}: take the id from the note in the result", place.result);
                ToolError::Arguments(fault)
            };
            let whole = context.whole_result(&place.result).await?.ok_or_else(unknown)?;
            page(&whole, place.offset.unwrap_or(0), place.find.as_deref())
        },
    )
}

fn page(whole: &str, offset: u64, find: Option<&str>) -> Result<String, ToolError> {
    let total = whole.len();
    let offset = usize::try_from(offset).ok().filter(|at| *at < total.max(1));
    let offset =
        offset.ok_or_else(|| ToolError::Arguments(format!("offset must be below {total}, the result's length")))?;
    let mut from = whole.floor_char_boundary(offset);
    if let Some(find) = find.filter(|find| !find.is_empty()) {
        let found = whole[from..].find(find);
        from += found.ok_or_else(|| ToolError::failed(format!("{find:?} does not stand there from byte {from} on")))?;
    }
    let to = whole.floor_char_boundary(from.saturating_add(PAGE));
    let next = if to < total { format!("; go on with offset {to}") } else { ", which is its end".to_owned() };
    Ok(format!("[bytes {from} to {to} of {total}{next}]\n{}", &whole[from..to]))
}

#[cfg(test)]
mod tests {
    use daybook_domain::ids::{RunId, SessionId};
    use serde_json::{Map, json};
    use std::sync::Arc;

    use super::*;
    use crate::{Tool, WholeResults};

    #[test]
    fn pages_follow_each_other_and_lose_nothing() {
        let whole = format!("a{}", "€".repeat(50_000));
        let (mut read, mut offset) = (String::new(), 0);
        loop {
            let page = page(&whole, offset, None).unwrap();
            let (head, text) = page.split_once('\n').unwrap();
            assert!(text.len() <= PAGE);
            read.push_str(text);
            let Some((_, next)) = head.split_once("go on with offset ") else { break };
            offset = next.trim_end_matches(']').parse().unwrap();
        }
        assert_eq!(read, whole);
        assert_eq!(page("", 0, None).unwrap(), "[bytes 0 to 0 of 0, which is its end]\n");
    }

    #[test]
    fn a_place_is_found_by_its_text_and_mistakes_are_told() {
        let whole = format!("{}error: no space{}error: again", "x".repeat(100_000), "y".repeat(10));
        assert!(
            page(&whole, 0, Some("error"))
                .unwrap()
                .starts_with("[bytes 100000 to 100037 of 100037, which is its end]\nerror: no")
        );
        assert!(page(&whole, 100_001, Some("error")).unwrap().ends_with("]\nerror: again"));
        assert!(
            page(&whole, 100_030, Some("error")).unwrap_err().to_string().contains("\"error\" does not stand there")
        );
        assert!(page(&whole, 100_037, None).unwrap_err().to_string().contains("below 100037"));
        assert!(page(&whole, u64::MAX, None).is_err());
        assert!(page("ö", 1, None).unwrap().ends_with("\nö"));
    }

    struct One;

    #[async_trait::async_trait]
    impl WholeResults for One {
        async fn whole(&self, id: &str) -> Result<Option<String>, ToolError> {
            Ok((id == "one").then(|| "all of it".to_owned()))
        }
    }

    #[tokio::test]
    async fn it_reads_what_its_context_has() {
        let id = |text: &str| text.to_owned();
        let (run, session) = (RunId::parse("r").unwrap(), SessionId::parse("s").unwrap());
        let context = ToolContext::new(run, session, None, id("c"), id("k"), Map::new());
        let ask = |result: &str| json!({"result": result}).as_object().cloned().unwrap();
        let lost = read_result().call(context.clone(), ask("one")).await.unwrap_err();
        assert!(lost.to_string().contains("no long result \"one\""), "{lost}");
        let context = context.with_results(Arc::new(One));
        assert!(read_result().call(context.clone(), ask("one")).await.unwrap().text.ends_with("\nall of it"));
        read_result().call(context, ask("two")).await.unwrap_err();
    }
}
