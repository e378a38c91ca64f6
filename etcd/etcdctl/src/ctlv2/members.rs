//! `/v2/members`.

use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::http::{Client, Error};
use crate::client::Context;
use crate::fetch::{Answer, Request};
use crate::go::json::{Object, array, strings};

const PATH: &str = "/v2/members";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Member {
    pub id: String,
    pub name: String,
    #[serde(rename = "peerURLs", deserialize_with = "or_null")]
    pub peer_urls: Vec<String>,
    #[serde(rename = "clientURLs", deserialize_with = "or_null")]
    pub client_urls: Vec<String>,
}

/// Go writes an empty list as null.
fn or_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    members: Vec<Member>,
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
}

pub async fn list(client: &mut Client, context: &Context) -> Result<Vec<Member>, Error> {
    let answer = client
        .send(context, &Request::get(PATH.to_owned()), false, false)
        .await?;
    expect(&answer, &[200])?;
    Ok(read::<List>(&answer)?.members)
}

pub async fn leader(client: &mut Client, context: &Context) -> Result<Member, Error> {
    let answer = client
        .send(context, &Request::get(format!("{PATH}/leader")), false, false)
        .await?;
    expect(&answer, &[200])?;
    read(&answer)
}

pub async fn add(client: &mut Client, context: &Context, peer_url: &str) -> Result<Member, Error> {
    let request = with_urls(Method::POST, PATH.to_owned(), &[peer_url.to_owned()])?;
    let answer = client.send(context, &request, false, false).await?;
    expect(&answer, &[201, 409])?;
    if answer.status != 201 {
        return Err(Error::Text(read::<Refusal>(&answer)?.message));
    }
    read(&answer)
}

pub async fn update(
    client: &mut Client,
    context: &Context,
    id: &str,
    peer_urls: &[String],
) -> Result<(), Error> {
    let request = with_urls(Method::PUT, format!("{PATH}/{id}"), peer_urls)?;
    let answer = client.send(context, &request, false, false).await?;
    expect(&answer, &[204, 404, 409])?;
    if answer.status != 204 {
        return Err(Error::Text(read::<Refusal>(&answer)?.message));
    }
    Ok(())
}

pub async fn remove(client: &mut Client, context: &Context, id: &str) -> Result<(), Error> {
    let request = Request::new(Method::DELETE, format!("{PATH}/{id}"));
    let answer = client.send(context, &request, false, false).await?;
    expect(&answer, &[204, 410])
}

fn with_urls(method: Method, path: String, urls: &[String]) -> Result<Request, Error> {
    for url in urls {
        check_url(url)?;
    }
    let mut urls = urls.to_vec();
    urls.sort();
    let body = Object::new().always("peerURLs", array(strings(&urls))).end();
    Ok(Request {
        content_type: Some("application/json"),
        body: Some(body),
        ..Request::new(method, path)
    })
}

/// As `types.NewURLs` refuses.
fn check_url(url: &str) -> Result<(), Error> {
    let refuse = |text: String| Err(Error::Text(text));
    let Some((scheme, rest)) = url.split_once("://") else {
        return refuse(format!("URL scheme must be http, https, unix, or unixs: {url}"));
    };
    if !["http", "https", "unix", "unixs"].contains(&scheme) {
        return refuse(format!("URL scheme must be http, https, unix, or unixs: {url}"));
    }
    if rest.contains('/') {
        return refuse(format!("URL must not contain a path: {url}"));
    }
    if !rest.contains(':') {
        return refuse(format!("URL address does not have the form \"host:port\": {url}"));
    }
    Ok(())
}

fn expect(answer: &Answer, wanted: &[u16]) -> Result<(), Error> {
    if wanted.contains(&answer.status) {
        return Ok(());
    }
    Err(Error::Text(format!("unexpected status code {}", answer.status)))
}

fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, Error> {
    serde_json::from_slice(&answer.body).map_err(|error| Error::Text(error.to_string()))
}
