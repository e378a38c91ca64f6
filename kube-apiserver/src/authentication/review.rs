//! TokenReview (whose token is this?) and SelfSubjectReview (who am I?).

use apimachinery::status::{self, StatusError};
use apimachinery::value::{Object, Value};
use futures_util::future::BoxFuture;

use super::Tokens;
use crate::endpoints::seam::{Creater, RequestContext};
use crate::user::UserInfo;

pub struct TokenReviews {
    pub tokens: Tokens,
    /// `--api-audiences`, asked for when the review names none.
    pub audiences: Vec<String>,
}

impl Creater for TokenReviews {
    fn create<'a>(
        &'a self,
        _: &'a RequestContext,
        _: &'a str,
        _: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<Value, StatusError>> {
        Box::pin(async move { self.review(object) })
    }
}

impl TokenReviews {
    fn review(&self, mut review: Value) -> Result<Value, StatusError> {
        if review.str_at("spec.token").is_empty() {
            return Err(status::bad_request(
                "token is required for TokenReview in authentication",
            ));
        }
        let mut audiences: Vec<String> = review
            .list_at("spec.audiences")
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        if audiences.is_empty() {
            audiences.clone_from(&self.audiences);
        }
        let mut found = Value::Object(Object::new());
        match self.tokens.authenticate(review.str_at("spec.token"), &audiences) {
            Ok(Some(known)) => {
                found.set("authenticated", true);
                found.set("user", user_value(&known.user));
                if !known.audiences.is_empty() {
                    found.set("audiences", known.audiences);
                }
            }
            Ok(None) => found.set("error", "invalid bearer token"),
            Err(reason) => found.set("error", reason),
        }
        if found.get("user").is_none() {
            found.set("user", Value::Object(Object::new()));
        }
        review.set("status", found);
        Ok(review)
    }
}

pub struct SelfSubjectReviews;

impl Creater for SelfSubjectReviews {
    fn create<'a>(
        &'a self,
        ctx: &'a RequestContext,
        _: &'a str,
        _: &'a str,
        mut object: Value,
    ) -> BoxFuture<'a, Result<Value, StatusError>> {
        Box::pin(async move {
            object.set_at("status.userInfo", user_value(&ctx.user));
            Ok(object)
        })
    }
}

fn user_value(user: &UserInfo) -> Value {
    let mut value = Value::Object(Object::new());
    value.set("username", user.name.as_str());
    if !user.uid.is_empty() {
        value.set("uid", user.uid.as_str());
    }
    if !user.groups.is_empty() {
        value.set("groups", user.groups.clone());
    }
    if !user.extra.is_empty() {
        let extra: Object = user
            .extra
            .iter()
            .map(|(k, v)| (k.as_str(), Value::from(v.clone())))
            .collect();
        value.set("extra", extra);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::super::token_file::TokenFile;
    use super::*;
    use std::sync::Arc;

    fn review(token: &str) -> Result<Value, StatusError> {
        let file = TokenFile::parse("t,jane,7,dev").expect("parses");
        let reviews = TokenReviews {
            tokens: Tokens(vec![Arc::new(file)]),
            audiences: vec![],
        };
        let mut object = Value::Null;
        object.set_at("spec.token", token);
        reviews.review(object)
    }

    #[test]
    fn a_known_token_names_its_user() {
        let answer = review("t").expect("reviewed");
        assert!(answer.bool_at("status.authenticated"));
        assert_eq!(answer.str_at("status.user.username"), "jane");
        assert_eq!(answer.list_at("status.user.groups").len(), 2);
    }

    #[test]
    fn an_unknown_token_is_an_answer_and_an_empty_one_an_error() {
        let answer = review("x").expect("reviewed");
        assert!(!answer.bool_at("status.authenticated"));
        assert_eq!(answer.str_at("status.error"), "invalid bearer token");
        assert_eq!(review("").expect_err("refused").code, 400);
    }
}
