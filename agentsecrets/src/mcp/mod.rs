//! The MCP server for AI models. Their requests are those of an agent, and the policy decides them; a model
//! names secrets, and gets advice after a rejection.

mod arguments;
pub(crate) mod bridge;
pub(crate) mod install;
mod server;
mod tool_result;

pub(crate) use server::serve;
