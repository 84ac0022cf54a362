//! What the OpenAPI document says beside the routes, which say the rest themselves.

use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder,
    security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    tag::TagBuilder,
};

const TAGS: [(&str, &str); 5] = [
    ("runs", "What agents are asked to do, and what became of it."),
    ("environments", "The image, repositories, set-up and values that runs start from."),
    ("workers", "The machines that run it."),
    ("admin", "Tokens, by the admin only."),
    ("plane", "The control plane itself."),
];

/// The document without a route.
pub(super) fn head() -> OpenApi {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "The admin key, or a tenant's token; a worker's token connects workers only.",
        ))
        .build();
    let tags =
        TAGS.map(|(name, text)| TagBuilder::new().name(name).description(Some(text)).build());
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Ozma")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(
                    "A self-hosted control plane for coding agents. The paths below /api/v1/agent are those of \
                     the Oz API, so that its clients work; errors are problem+json.",
                ))
                .license(Some(LicenseBuilder::new().name("MIT OR Apache-2.0").build()))
                .build(),
        )
        .tags(Some(tags))
        .components(Some(
            ComponentsBuilder::new()
                .security_scheme("bearer", SecurityScheme::Http(bearer))
                .build(),
        ))
        .build()
}
