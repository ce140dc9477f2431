//! Fraud detection from its parts to its service.

#![forbid(unsafe_code)]

mod bytes;
mod detector;
mod memory;
mod score;
mod service;
mod support;
mod windows;
