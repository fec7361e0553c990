//! What goes over the wire, as the specification of MessagePack-RPC has it.
//!
//! | message | array |
//! |---|---|
//! | request | `[0, msgid, method, params]` |
//! | response | `[1, msgid, error, result]`, one of the last two is nil |
//! | notification | `[2, method, params]`, which nobody answers |

use std::io::{self, Read};

use rmpv::Value;

/// How deep arrays and maps may be in one another.
const DEPTH: usize = 32;

/// What a client may send.
#[derive(Debug, PartialEq)]
pub(crate) enum Message {
    Request { id: u32, method: String, params: Vec<Value> },
    Notification { method: String, params: Vec<Value> },
}

impl Message {
    /// # Errors
    ///
    /// What cannot be read, is no MessagePack, or none of these messages.
    pub(crate) fn read(from: &mut impl Read) -> io::Result<Self> {
        let value = rmpv::decode::read_value_with_max_depth(from, DEPTH)?;
        let shown = value.to_string();
        Self::of(value).ok_or_else(|| {
            let shown: String = shown.chars().take(60).collect();
            io::Error::new(io::ErrorKind::InvalidData, format!("no request: {shown}"))
        })
    }

    fn of(value: Value) -> Option<Self> {
        let Value::Array(parts) = value else { return None };
        match <[Value; 4]>::try_from(parts) {
            Ok([kind, id, Value::String(method), Value::Array(params)]) => {
                let id = u32::try_from(id.as_u64()?).ok()?;
                let method = method.into_str()?;
                (kind.as_u64() == Some(0)).then_some(Self::Request { id, method, params })
            }
            Ok(_) => None,
            Err(parts) => match <[Value; 3]>::try_from(parts) {
                Ok([kind, Value::String(method), Value::Array(params)]) => {
                    let method = method.into_str()?;
                    (kind.as_u64() == Some(2)).then_some(Self::Notification { method, params })
                }
                Ok(_) | Err(_) => None,
            },
        }
    }
}

/// The answer to a request.
pub(crate) fn response(id: u32, outcome: Result<Value, String>) -> io::Result<Vec<u8>> {
    let (error, result) = match outcome {
        Ok(result) => (Value::Nil, result),
        Err(error) => (Value::from(error), Value::Nil),
    };
    let message = Value::Array(vec![Value::from(1), Value::from(id), error, result]);
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, &message)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &Value) -> io::Result<Message> {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, value).expect("bytes");
        Message::read(&mut bytes.as_slice())
    }

    #[test]
    fn only_requests_and_notifications_are_messages_of_a_client() {
        let (method, params) = (Value::from("add"), Value::Array(vec![Value::from(1)]));
        let request = Value::Array(vec![0.into(), 7.into(), method.clone(), params.clone()]);
        let wanted = Message::Request { id: 7, method: "add".into(), params: vec![1.into()] };
        assert_eq!(read(&request).expect("a request"), wanted);
        let notification = Value::Array(vec![2.into(), method.clone(), params.clone()]);
        let wanted = Message::Notification { method: "add".into(), params: vec![1.into()] };
        assert_eq!(read(&notification).expect("a notification"), wanted);
        for wrong in [
            Value::Nil,
            Value::Array(vec![]),
            Value::Array(vec![0.into(), 7.into(), method.clone()]),
            Value::Array(vec![1.into(), 7.into(), method.clone(), params.clone()]),
            Value::Array(vec![0.into(), u64::MAX.into(), method.clone(), params.clone()]),
            Value::Array(vec![0.into(), 7.into(), 8.into(), params.clone()]),
            Value::Array(vec![0.into(), 7.into(), method.clone(), 8.into()]),
            Value::Array(vec![0.into(), 7.into(), method, params.clone(), params]),
        ] {
            let error = read(&wrong).expect_err("no message");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{wrong}");
        }
    }

    #[test]
    fn depth_and_claimed_lengths_are_bounded() {
        let deep = [0x91; 1000];
        assert!(Message::read(&mut deep.as_slice()).is_err());
        // An array of four thousand million elements, of which none comes.
        let long = [0xdd, 0xff, 0xff, 0xff, 0xff];
        assert!(Message::read(&mut long.as_slice()).is_err());
    }
}
