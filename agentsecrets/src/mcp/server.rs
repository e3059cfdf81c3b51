//! The MCP server on standard input and output. It ends when its client closes the connection or a signal
//! arrives; calls in flight are then cancelled and recorded as aborted.

use std::sync::Arc;

use http::Request;
use http::header::HOST;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
};
use rmcp::service::{RequestContext, RoleServer, ServerInitializeError};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::io::stdio_pipes;
use rmcp::{ErrorData, ServerHandler, ServiceExt};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::arguments::{ApiCall, object};
use crate::call::Sender;
use crate::mcp::tool_result;
use crate::pipeline::value_export;
use crate::sys::{ShutdownListener, wait_until_nobody_reads};
use crate::types::body::empty;
use crate::types::failure::{ErrorContext, Exit, Failure};

/// Longer messages are dropped.
const MAX_MESSAGE_BYTES: usize = 32 << 20;
const MAX_RESPONSE_BYTES: usize = 1 << 20;
const MAX_CONCURRENT_CALLS: usize = 32;

const INSTRUCTIONS: &str = "\
AgentSecrets sends HTTP requests with credentials that you never see: you give the NAME of a secret, its value is \
inserted on the way, and removed from the response.\n\
- list_secrets: the names that you may use.\n\
- api_call: one request. `injections` says where a secret goes, by its name: {\"bearer\": \"STRIPE_KEY\"}, \
{\"basic\": \"LOGIN\"}, {\"header:X-Api-Key\": \"KEY\"}, {\"query:key\": \"KEY\"}, {\"body:a.b\": \"KEY\"}, \
{\"form:field\": \"KEY\"}.\n\
- A placeholder, AS_SECRET_<NAME>, may be in a header instead, such as {\"X-Api-Key\": \"AS_SECRET_API_KEY\"}: it is \
replaced where the policy allows it, and stays text elsewhere.\n\
- Never ask the user for a secret's value, and never put one into a request.\n\
- [REDACTED_BY_AGENTSECRETS] in a response marks a removed secret.\n\
- Redirects are not followed: repeat the call with the new URL if it is right.\n\
- An error with a name such as policy_denied or domain_not_in_allowlist is a decision of the user's policy. Do not \
repeat the request or look for a way around it; tell the user.";

/// Serves the client on standard input and output until it closes the connection or a signal arrives;
/// `sender` sends the requests.
pub(crate) async fn serve(sender: Sender) -> Result<(), Failure> {
    let end = CancellationToken::new();
    tokio::spawn(cancel_on_signal(end.clone()));
    cancel_when_output_closed(end.clone());
    let (read, write) = stdio_pipes();
    let transport = AsyncRwTransport::new_server(read, write).with_max_line_length(MAX_MESSAGE_BYTES);
    let server = Server { sender: Arc::new(sender), permits: Semaphore::new(MAX_CONCURRENT_CALLS) };
    let running = match server.serve_with_ct(transport, end).await {
        Ok(running) => running,
        Err(ServerInitializeError::ConnectionClosed(_) | ServerInitializeError::Cancelled) => return Ok(()),
        Err(ServerInitializeError::ExpectedInitializeRequest(_)) => {
            return Err(Failure::new(Exit::Failure, "the client did not start an MCP session"));
        }
        Err(error) => {
            return Err(Failure::new(Exit::Failure, format!("no MCP session was started: {error}")));
        }
    };
    let ended = running.waiting().await;
    ended.map(drop).context("the MCP session failed")
}

struct Server {
    sender: Arc<Sender>,
    permits: Semaphore,
}

impl Server {
    /// Calls the tool of `request`; none if there is no such tool.
    async fn call(&self, request: CallToolRequestParams) -> Option<CallToolResult> {
        let _room = self.permits.acquire().await.ok()?;
        match &*request.name {
            "list_secrets" => Some(self.list_secrets().await),
            "api_call" => Some(self.api_call(request).await),
            _ => None,
        }
    }

    async fn list_secrets(&self) -> CallToolResult {
        let url = format!("https://{}{}", value_export::HOST, value_export::NAMES_PATH);
        let request = match Request::get(url).header(HOST, value_export::HOST).body(empty()) {
            Ok(request) => request,
            Err(error) => return tool_result::bad_request(&error.to_string()),
        };
        let answer = match self.sender.send(request, &[], MAX_RESPONSE_BYTES).await {
            Ok(answer) => answer,
            Err(failure) => return tool_result::failure(&failure),
        };
        match serde_json::from_slice::<Vec<String>>(&answer.body) {
            Ok(names) if names.is_empty() => {
                let none = "The policy lets you use no secret. Tell the user, if you need one.";
                CallToolResult::success(vec![ContentBlock::text(none)])
            }
            Ok(names) => CallToolResult::success(vec![ContentBlock::text(names.join("\n"))]),
            Err(_) => tool_result::response(&answer),
        }
    }

    async fn api_call(&self, request: CallToolRequestParams) -> CallToolResult {
        let read = ApiCall::parse(request.arguments).and_then(ApiCall::build);
        let (request, injections) = match read {
            Ok(read) => read,
            Err(reason) => return tool_result::bad_request(&reason),
        };
        match self.sender.send(request, &injections, MAX_RESPONSE_BYTES).await {
            Ok(answer) => tool_result::response(&answer),
            Err(failure) => tool_result::failure(&failure),
        }
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let us = Implementation::new("AgentSecrets", env!("CARGO_PKG_VERSION"));
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(us)
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let unknown =
            || ErrorData::invalid_params("there is no such tool: they are list_secrets and api_call", None);
        tokio::select! {
            result = self.call(request) => result.map(Into::into).ok_or_else(unknown),
            // Dropping the call cancels it.
            () = context.ct.cancelled() => Err(ErrorData::internal_error("the call was cancelled", None)),
        }
    }
}

fn tools() -> Vec<Tool> {
    let names =
        object(serde_json::json!({"type": "object", "properties": {}, "additionalProperties": false}));
    let list = "List the names of the secrets that you may use in api_call. Values are never shown.";
    let call = "Send one HTTP request with credentials that you name and never see. The answer begins with `HTTP \
                <code>`, then the body; secrets in it are removed. Which hosts, methods, paths and secrets are \
                allowed is the user's policy.";
    vec![
        Tool::new("list_secrets", list, names).with_annotations(
            ToolAnnotations::with_title("List secrets' names")
                .read_only(true)
                .idempotent(true)
                .open_world(false),
        ),
        Tool::new("api_call", call, ApiCall::schema()).with_annotations(
            ToolAnnotations::with_title("Call an API with credentials")
                .read_only(false)
                .destructive(true)
                .idempotent(false)
                .open_world(true),
        ),
    ]
}

/// Cancels `end` when a signal ends this process.
async fn cancel_on_signal(end: CancellationToken) {
    let Ok(mut ending) = ShutdownListener::listen() else { return };
    ending.asked().await;
    end.cancel();
}

/// Cancels `end` when the reader closes our standard output, even while nothing is written.
fn cancel_when_output_closed(end: CancellationToken) {
    let watch = move || {
        if wait_until_nobody_reads().is_ok() {
            end.cancel();
        }
    };
    // Without this thread we notice it at the next write.
    let _ = std::thread::Builder::new().name("stdout".to_owned()).spawn(watch);
}
