//! The API's document is checked in; a route that changes shows in the diff. `UPDATE_EXPECT=1` writes it anew.

use std::collections::BTreeSet;

use expect_test::expect_file;

use crate::edge::Edge;

#[tokio::test]
async fn the_document_is_the_one_checked_in() {
    let edge = Edge::start().await;
    let answer = edge.get("", "/api/v1/openapi.json").await;
    expect_file!["../../../docs/openapi.json"].assert_eq(&answer.text);
    edge.stop().await;
}

#[tokio::test]
async fn every_reference_leads_somewhere_and_every_operation_has_a_name_of_its_own() {
    let edge = Edge::start().await;
    let document = edge.get("", "/api/v1/openapi.json").await;
    let json = document.json();
    for rest in document.text.split("\"$ref\": \"#/components/schemas/").skip(1) {
        let name = rest.split('"').next().unwrap_or_default();
        assert!(json["components"]["schemas"].get(name).is_some(), "{name} is not described");
    }
    let mut names = BTreeSet::new();
    for (path, item) in json["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name.to_owned()), "{name} twice");
            assert!(operation["summary"].is_string(), "{method} {path} says nothing");
        }
    }
    edge.stop().await;
}
