//! What the flags mean: a request, and the secrets that are to be put into it.

use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request};

use super::Args;
use crate::cli::{Exit, Failure};
use crate::exchange::body::{Body, empty, full};
use crate::policy::ask::Reference;
use crate::policy::grant::Style;
use crate::policy::injects::{injectable_header, json, named};

/// One secret to be put in.
pub(super) struct Injection {
    /// As the stages take it.
    pub(super) reference: Reference,
    /// As a header says it.
    pub(super) header: String,
}

/// Reads `NAME=K`. A name may hold `=`, a secret's name cannot.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, key) = text.rsplit_once('=').ok_or("it is written as NAME=SECRET_NAME")?;
    Ok((name.to_owned(), key.to_owned()))
}

/// The secrets that `args` name.
pub(super) fn injections(args: &Args) -> Result<Vec<Injection>, Failure> {
    let mut found = Vec::new();
    let mut add = |flag: &str, style: Result<Style, String>, key: &str, header: String| {
        let wrong = |why: &dyn std::fmt::Display| Failure::new(Exit::Usage, format!("--{flag}: {why}"));
        let style = style.map_err(|why| wrong(&why))?;
        let name = key.parse().map_err(|why| wrong(&why))?;
        found.push(Injection { reference: Reference { name, style }, header });
        Ok(())
    };
    if let Some(key) = &args.bearer {
        add("bearer", Ok(Style::Bearer), key, "Bearer".to_owned())?;
    }
    if let Some(key) = &args.basic {
        add("basic", Ok(Style::Basic), key, "Basic".to_owned())?;
    }
    for (name, key) in &args.header {
        add("header", injectable_header(name).map(Style::Header), key, format!("Header-{name}"))?;
    }
    for (name, key) in &args.query {
        add("query", named("query parameter", name).map(Style::Query), key, format!("Query-{name}"))?;
    }
    for (path, key) in &args.body_field {
        add("body-field", json(path), key, format!("Body-{}", path.replace('.', "-")))?;
    }
    for (name, key) in &args.form_field {
        add("form-field", named("form field", name).map(Style::Form), key, format!("Form-{name}"))?;
    }
    Ok(found)
}

/// The request that `args` describe, without any secret.
pub(super) fn request(args: &Args, injections: &[Injection]) -> Result<Request<Body>, Failure> {
    let wrong = |what: String| Failure::new(Exit::Usage, what);
    let url = url::Url::parse(&args.url).map_err(|error| wrong(format!("--url: {error}")))?;
    if !matches!(url.scheme(), "https" | "http") || !url.has_host() {
        return Err(wrong("--url: it must begin with https:// or http:// and name a host".to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("--url: it holds a user or password; store them, and use --basic".to_owned()));
    }
    let method: Method = args
        .method
        .to_ascii_uppercase()
        .parse()
        .map_err(|_| wrong(format!("--method: '{}' is no method", args.method.escape_debug())))?;
    let styles = || injections.iter().map(|injection| &injection.reference.style);
    let body = match &args.body {
        Some(body) => Some(body.clone()),
        None if styles().any(|style| matches!(style, Style::Json(_))) => Some("{}".to_owned()),
        None if styles().any(|style| matches!(style, Style::Form(_))) => Some(String::new()),
        None => None,
    };
    let mut request = Request::new(body.clone().map_or_else(empty, full));
    *request.method_mut() = method;
    let authority = url.authority().to_owned();
    *request.uri_mut() = url.as_str().parse().map_err(|error| wrong(format!("--url: {error}")))?;
    let headers = request.headers_mut();
    let host =
        HeaderValue::try_from(authority).map_err(|_| wrong("--url: its host is not valid".to_owned()))?;
    headers.insert(HOST, host);
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("agentsecrets/", env!("CARGO_PKG_VERSION"))));
    if let Some(body) = body {
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&body).is_ok();
        let kind = if is_json { "application/json" } else { "application/x-www-form-urlencoded" };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    Ok(request)
}
