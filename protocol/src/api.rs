//! Bodies of the REST API: the Oz shapes (oz-api.md 1) and our own.
