//! The Tool port and the tools that come with Daybook.
//! A tool says what a second call of it does ([`Effect`](daybook_domain::tool::Effect)); recovery depends on it.

mod builtin;
mod chosen;
mod files;
mod function;
mod port;
mod shell;
mod source;
mod sql;
#[cfg(test)]
mod testing;

pub use builtin::{calculator, current_time};
pub use chosen::{ApprovalOptions, Choice, ToolRule, choose};
pub use files::{FilesError, FilesOptions, files};
pub use function::FunctionTool;
pub use port::{Tool, ToolContext, ToolError, ToolOutput, ToolSet};
pub use shell::{ShellError, ShellOptions, shell};
pub use source::{SourceError, ToolSource};
pub use sql::{SqlError, SqlOptions, sql, sql_lazily};
