//! HTTP for people and machines: health, /metrics, the API and the pages.
