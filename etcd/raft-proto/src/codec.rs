//! rust-protobuf's trait over prost's: only the size, whole encoding and whole decoding have a meaning here.

use std::any::Any;
use std::sync::LazyLock;

use protobuf::error::WireError;
use protobuf::reflect::MessageDescriptor;
use protobuf::{CodedInputStream, CodedOutputStream, ProtobufError, ProtobufResult, UnknownFields};

use crate::eraftpb::{
    ConfChange, ConfChangeSingle, ConfChangeV2, ConfState, Entry, HardState, Message, Snapshot,
    SnapshotMetadata,
};

macro_rules! codec {
    ($($message:ident)*) => { $(
        impl protobuf::Clear for $message {
            fn clear(&mut self) {
                prost::Message::clear(self);
            }
        }

        impl protobuf::Message for $message {
            fn compute_size(&self) -> u32 {
                prost::Message::encoded_len(self) as u32
            }

            fn get_cached_size(&self) -> u32 {
                prost::Message::encoded_len(self) as u32
            }

            fn write_to_with_cached_sizes(&self, out: &mut CodedOutputStream<'_>) -> ProtobufResult<()> {
                out.write_raw_bytes(&prost::Message::encode_to_vec(self))
            }

            fn write_to_bytes(&self) -> ProtobufResult<Vec<u8>> {
                Ok(prost::Message::encode_to_vec(self))
            }

            // Streams are rust-protobuf's own business; bytes come through `merge_from_bytes`.
            fn merge_from(&mut self, _: &mut CodedInputStream<'_>) -> ProtobufResult<()> {
                Err(ProtobufError::WireError(WireError::Other))
            }

            fn merge_from_bytes(&mut self, bytes: &[u8]) -> ProtobufResult<()> {
                prost::Message::merge(self, bytes).map_err(|_| ProtobufError::WireError(WireError::Other))
            }

            fn is_initialized(&self) -> bool {
                true
            }

            fn as_any(&self) -> &dyn Any {
                self
            }

            fn descriptor(&self) -> &'static MessageDescriptor {
                Self::descriptor_static()
            }

            fn new() -> Self {
                Self::default()
            }

            fn default_instance() -> &'static Self {
                static EMPTY: LazyLock<$message> = LazyLock::new($message::default);
                &EMPTY
            }

            // prost drops fields that it does not know.
            fn get_unknown_fields(&self) -> &UnknownFields {
                static NONE: LazyLock<UnknownFields> = LazyLock::new(UnknownFields::new);
                &NONE
            }

            fn mut_unknown_fields(&mut self) -> &mut UnknownFields {
                Box::leak(Box::default())
            }
        }
    )* };
}

codec!(Entry SnapshotMetadata Snapshot Message HardState ConfState ConfChange ConfChangeSingle ConfChangeV2);
