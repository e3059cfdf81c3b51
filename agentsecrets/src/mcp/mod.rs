//! MCP: the way in for models. What they ask for is a request like any other, judged by the policy as an
//! agent's; they name secrets, and are told what to do about a refusal in words that they understand.

mod arguments;
pub mod bridge;
pub mod install;
mod server;
mod tool_result;

pub use server::serve;
