//! `--token-auth-file`: lines of `token,user,uid,"group1,group2"`.

use hashbrown::HashMap;

use super::{Authenticated, Outcome, TokenAuthenticator};
use crate::user::UserInfo;

pub struct TokenFile(HashMap<String, UserInfo>);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {reason}; each line must be token,user,uid[,\"group,group\"]")]
pub struct TokenFileError {
    pub line: usize,
    pub reason: &'static str,
}

impl TokenFile {
    pub fn parse(text: &str) -> Result<TokenFile, TokenFileError> {
        let mut tokens = HashMap::new();
        for (at, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let error = |reason| TokenFileError { line: at + 1, reason };
            let mut fields = csv_fields(line).ok_or_else(|| error("a quote is not closed"))?;
            if fields.len() < 3 {
                return Err(error("fewer than three columns"));
            }
            if fields[0].is_empty() {
                // Upstream skips these with a warning; an empty token can authenticate nobody.
                tracing::warn!(line = at + 1, "Empty token has been found in token file");
                continue;
            }
            let groups = fields.get(3).map(|g| {
                g.split(',')
                    .filter(|g| !g.is_empty())
                    .map(|g| g.trim().to_owned())
                    .collect()
            });
            let user = UserInfo {
                name: fields[1].clone(),
                uid: fields[2].clone(),
                groups: groups.unwrap_or_default(),
                ..Default::default()
            };
            tokens.insert(fields.swap_remove(0), user);
        }
        Ok(TokenFile(tokens))
    }
}

impl TokenAuthenticator for TokenFile {
    fn authenticate(&self, token: &str, _: &[String]) -> Outcome {
        Ok(self.0.get(token).cloned().map(Authenticated::new))
    }
}

fn csv_fields(line: &str) -> Option<Vec<String>> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.trim().chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    (!quoted).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_give_user_uid_and_groups() {
        let file = TokenFile::parse("t1,jane,7,\"dev,ops\"\n\nt2,joe,8\n").expect("parses");
        let jane = file.authenticate("t1", &[]).expect("ok").expect("known").user;
        assert_eq!(
            (jane.name.as_str(), jane.uid.as_str(), jane.groups),
            ("jane", "7", vec!["dev".to_owned(), "ops".to_owned()])
        );
        assert!(
            file.authenticate("t2", &[])
                .expect("ok")
                .expect("known")
                .user
                .groups
                .is_empty()
        );
        assert_eq!(file.authenticate("t3", &[]), Ok(None));
    }

    #[test]
    fn a_bad_line_is_named() {
        assert_eq!(TokenFile::parse("a,b,c\nx,y").err().expect("error").line, 2);
        assert!(TokenFile::parse("a,b,c,\"open").is_err());
    }
}
