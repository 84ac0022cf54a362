//! Fields that take a list or a text of lines, as the community plane does (oz-api.md 1.14).

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor, value::MapAccessDeserializer},
};

use crate::spec::Repo;

/// Commands: an array of strings, or one text with a command a line. Blank ones are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = Vec<String>))]
pub struct Lines(pub Vec<String>);

/// Repositories: an array of addresses or of objects, or one text with an address a line. One that is only its
/// address is written as a string.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = Vec<Repo>))]
pub struct Repos(pub Vec<Repo>);

/// The lines of a text that are not blank, without the blanks around them.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

impl<'de> Deserialize<'de> for Lines {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Lines;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of strings, or one text of lines")
            }

            fn visit_str<E>(self, text: &str) -> Result<Lines, E> {
                Ok(Lines(lines(text).map(str::to_owned).collect()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Lines, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element::<String>()? {
                    let item = item.trim();
                    if !item.is_empty() {
                        all.push(item.to_owned());
                    }
                }
                Ok(Lines(all))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// One entry of [`Repos`].
struct Entry(Option<Repo>);

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a repository's address, or an object with its url")
            }

            fn visit_str<E>(self, text: &str) -> Result<Entry, E> {
                let text = text.trim();
                Ok(Entry((!text.is_empty()).then(|| Repo::new(text))))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
                Repo::deserialize(MapAccessDeserializer::new(map)).map(|repo| Entry(Some(repo)))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl<'de> Deserialize<'de> for Repos {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Repos;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of repositories, or one text of lines")
            }

            fn visit_str<E>(self, text: &str) -> Result<Repos, E> {
                Ok(Repos(lines(text).map(Repo::new).collect()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Repos, A::Error> {
                let mut all = Vec::new();
                while let Some(Entry(repo)) = items.next_element()? {
                    all.extend(repo);
                }
                Ok(Repos(all))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl Serialize for Repos {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|repo| {
            if *repo == Repo::new(repo.url.as_str()) {
                Written::Url(&repo.url)
            } else {
                Written::All(repo)
            }
        }))
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Written<'a> {
    Url(&'a str),
    All(&'a Repo),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_and_a_text_of_lines_are_the_same() {
        let list: Lines = serde_json::from_str(r#"[" make ", "", "make test"]"#).unwrap();
        let text: Lines = serde_json::from_str(r#""make\n\n  make test\n""#).unwrap();
        assert_eq!(list, text);
        assert_eq!(list.0, ["make", "make test"]);
        assert!(serde_json::from_str::<Lines>("[1]").is_err());
    }

    #[test]
    fn repositories_come_as_addresses_or_objects_and_go_back_as_they_came() {
        let wire = r#"["acme/shop",{"url":"/srv/x.git","ref":"main"}]"#;
        let repos: Repos = serde_json::from_str(wire).unwrap();
        assert_eq!(repos.0[0], Repo::new("acme/shop"));
        assert_eq!(repos.0[1].reference.as_deref(), Some("main"));
        assert_eq!(serde_json::to_string(&repos).unwrap(), wire);
        let text: Repos = serde_json::from_str(r#""acme/shop\nacme/tools""#).unwrap();
        assert_eq!(text.0.len(), 2);
        assert!(serde_json::from_str::<Repos>(r#"[{"url":"a/b","reff":"x"}]"#).is_err());
    }
}
