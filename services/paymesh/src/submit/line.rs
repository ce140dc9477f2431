//! One line of a submit file, turned into an instruction or into the reason why it is none.
//!
//! Pure: no I/O. What the mesh knows better (whether a user exists, whether the money is there) is left to the mesh.

use paymesh_types::{Country, Currency, Money, RegionName, RequestId, UserId, VaultToken};
use uuid::Uuid;

/// The columns that a header must have, in any order.
pub(crate) const COLUMNS: [&str; 9] = ["id", "kind", "user", "counterparty", "amount", "currency", "country", "via", "reference"];

/// The column that a header may have: what stands for the card that a payment is made by.
const CARD: &str = "card";

/// Bytes of an id at most.
const ID_BYTES_MAX: usize = 128;
/// Bytes of a reference at most, as the contract says.
const REFERENCE_BYTES_MAX: usize = 140;
/// Currencies of one enrolment at most, as the contract says.
const ENROL_CURRENCIES_MAX: usize = 16;

/// What a line asks for. Not printable: the reference and the country are personal data.
pub(crate) struct Instruction {
    /// Derived from the line's id and the namespace.
    pub(crate) request_id: RequestId,
    /// What to do.
    pub(crate) action: Action,
    /// The caller's own words.
    pub(crate) reference: String,
    /// The region to call; when absent, the regions take turns.
    pub(crate) via: Option<RegionName>,
}

/// What to do.
pub(crate) enum Action {
    /// Enrol the user and open accounts.
    Enrol { user: UserId, country: Country, currencies: Vec<Currency> },
    /// Money from outside.
    Deposit { user: UserId, amount: Money },
    /// Money to outside.
    Withdrawal { user: UserId, amount: Money },
    /// From one user to another, captured at once; out of the payer's account, or by card.
    Payment { payer: UserId, payee: UserId, amount: Money, card: Option<VaultToken> },
}

impl Instruction {
    /// The users whose accounts it touches: the order among such lines is the file's.
    pub(crate) fn users(&self) -> [Option<UserId>; 2] {
        match self.action {
            Action::Enrol { user, .. } | Action::Deposit { user, .. } | Action::Withdrawal { user, .. } => [Some(user), None],
            Action::Payment { payer, payee, .. } => [Some(payer), Some(payee)],
        }
    }
}

/// Where each column stands in this file.
pub(crate) struct Columns {
    places: [usize; COLUMNS.len()],
    card: Option<usize>,
    count: usize,
}

impl Columns {
    /// Reads the header. The error names the column that is missing or stands twice.
    pub(crate) fn from_header(line: &[u8]) -> Result<Self, String> {
        let line = std::str::from_utf8(line).map_err(|_| "the header is not UTF-8".to_owned())?;
        let fields = split(line)?;
        let mut places = [0; COLUMNS.len()];
        for (place, column) in places.iter_mut().zip(COLUMNS) {
            let mut found = fields.iter().enumerate().filter(|(_, field)| *field == column);
            *place = match (found.next(), found.next()) {
                (Some((index, _)), None) => index,
                (Some(_), Some(_)) => return Err(format!("the header has the column `{column}` twice")),
                (None, _) => return Err(format!("the header has no column `{column}`; it needs {}", COLUMNS.join(","))),
            };
        }
        let mut cards = fields.iter().enumerate().filter(|(_, field)| *field == CARD).map(|(index, _)| index);
        let card = cards.next();
        if cards.next().is_some() {
            return Err(format!("the header has the column `{CARD}` twice"));
        }
        Ok(Self { places, card, count: fields.len() })
    }

    /// Reads a line. `is_region` says which names of regions the configuration knows.
    pub(crate) fn parse(&self, line: &[u8], namespace: &str, is_region: impl Fn(&RegionName) -> bool) -> Result<Instruction, String> {
        let line = std::str::from_utf8(line).map_err(|error| format!("not UTF-8 from byte {} of the line on", error.valid_up_to() + 1))?;
        let fields = split(line)?;
        if fields.len() != self.count {
            return Err(format!("the header has {} fields, the line has {}", self.count, fields.len()));
        }
        let card = self.card.map_or("", |place| fields[place].as_str());
        let [id, kind, user, counterparty, amount, currency, country, via, reference] = self.places.map(|place| fields[place].as_str());

        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return Err(format!("id: 1 to {ID_BYTES_MAX} bytes, not {}", id.len()));
        }
        if reference.len() > REFERENCE_BYTES_MAX {
            return Err(format!("reference: at most {REFERENCE_BYTES_MAX} bytes, not {}", reference.len()));
        }
        let via = match via {
            "" => None,
            name => match name.parse() {
                Ok(region) if is_region(&region) => Some(region),
                _ => return Err(format!("via: the configuration has no region `{name}`")),
            },
        };
        let user: UserId = field("user", user)?;
        let none = |name: &str, value: &str| match value {
            "" => Ok(()),
            _ => Err(format!("{name}: a line of kind {kind} has none")),
        };
        let money = || -> Result<Money, String> {
            let currency = Currency::from_code(currency).map_err(|error| format!("currency: {error}, not `{currency}`"))?;
            Money::parse(amount, currency).map_err(|error| format!("amount: {error}"))
        };
        if kind != "payment" {
            none("card", card)?;
        }
        let action = match kind {
            "enrol" => {
                none("counterparty", counterparty)?;
                none("amount", amount)?;
                none("reference", reference)?;
                // The value is personal data: the reason does not repeat it.
                let country = country.parse().map_err(|error| format!("country: {error}"))?;
                let currencies: Result<Vec<Currency>, String> = currency
                    .split(';')
                    .filter(|code| !code.is_empty())
                    .map(|code| Currency::from_code(code).map_err(|error| format!("currency: {error}, not `{code}`")))
                    .collect();
                let currencies = currencies?;
                if currencies.len() > ENROL_CURRENCIES_MAX {
                    return Err(format!("currency: at most {ENROL_CURRENCIES_MAX} for an enrolment, not {}", currencies.len()));
                }
                Action::Enrol { user, country, currencies }
            }
            "deposit" | "withdrawal" => {
                none("counterparty", counterparty)?;
                none("country", country)?;
                let amount = money()?;
                if kind == "deposit" { Action::Deposit { user, amount } } else { Action::Withdrawal { user, amount } }
            }
            "payment" | "transfer" => {
                none("country", country)?;
                let payee: UserId = field("counterparty", counterparty)?;
                if payee == user {
                    return Err("counterparty: payer and payee are the same user".to_owned());
                }
                // The value may be a card's number by mistake: the reason does not repeat it.
                let card = if card.is_empty() { None } else { Some(field("card", card)?) };
                Action::Payment { payer: user, payee, amount: money()?, card }
            }
            _ => return Err(format!("kind: enrol, deposit, withdrawal, payment or transfer, not `{kind}`")),
        };
        Ok(Instruction { request_id: request_id(namespace, id), action, reference: reference.to_owned(), via })
    }
}

/// Parses a field of a domain type.
fn field<T: std::str::FromStr<Err = paymesh_types::Invalid>>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|error| format!("{name}: {error}"))
}

/// The request id of a line: a UUID of version 8 made of the BLAKE3 hash of namespace and id. The file's name and place
/// do not matter, so the same file submitted from elsewhere asks for the same writes, and a corrected line of an edited
/// file leaves the others as they are.
pub(crate) fn request_id(namespace: &str, id: &str) -> RequestId {
    let mut hasher = blake3::Hasher::new_derive_key("paymesh submit request id v1");
    // The length keeps (`a`, `bc`) and (`ab`, `c`) apart.
    hasher.update(&(namespace.len() as u64).to_le_bytes());
    hasher.update(namespace.as_bytes());
    hasher.update(id.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    let uuid: Uuid = uuid::Builder::from_custom_bytes(bytes).into_uuid();
    uuid.try_into().expect("a UUID of version 8 is not nil")
}

/// The fields of one line (RFC 4180, without line breaks inside of quotes).
fn split(line: &str) -> Result<Vec<String>, String> {
    // A quote that is not closed would make the reader take the end of the line for the end of the field.
    if line.bytes().filter(|byte| *byte == b'"').count() % 2 == 1 {
        return Err("a quote is not closed (a field must not contain a line break)".to_owned());
    }
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).buffer_capacity(line.len().max(1)).from_reader(line.as_bytes());
    let mut record = csv::StringRecord::new();
    reader.read_record(&mut record).map_err(|error| format!("not a line of CSV: {error}"))?;
    Ok(record.iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &[u8] = b"id,kind,user,counterparty,amount,currency,country,via,reference";

    fn parse(line: &[u8]) -> Result<Instruction, String> {
        Columns::from_header(HEADER).expect("the header").parse(line, "", |region| region.as_str() == "eu_west")
    }

    #[test]
    fn good_lines_are_understood() {
        for line in [
            "1,enrol,7,,,EUR;USD,DE,,",
            "2,enrol,7,,,,DE,eu_west,",
            "3,deposit,7,,12.50,EUR,,,salary",
            "4,withdrawal,7,,12,EUR,,eu_west,\"rent, March\"",
            "5,payment,7,8,1,JPY,,,",
            "6,transfer,7,8,1.234,KWD,,,",
        ] {
            assert!(parse(line.as_bytes()).is_ok(), "{line}: {:?}", parse(line.as_bytes()).err());
        }
        let quoted = parse(b"4,withdrawal,7,,12,EUR,,eu_west,\"a \"\"b\"\", c\"").ok().map(|instruction| instruction.reference);
        assert_eq!(quoted.as_deref(), Some("a \"b\", c"));
    }

    #[test]
    fn each_bad_line_names_its_field() {
        let table: [(&[u8], &str); 20] = [
            (b",deposit,7,,1,EUR,,,", "id:"),
            (b"1,gift,7,,1,EUR,,,", "kind:"),
            (b"1,deposit,0,,1,EUR,,,", "user:"),
            (b"1,deposit,-7,,1,EUR,,,", "user:"),
            (b"1,deposit,9223372036854775808,,1,EUR,,,", "user:"),
            (b"1,deposit,7,8,1,EUR,,,", "counterparty:"),
            (b"1,deposit,7,,0,EUR,,,", "amount:"),
            (b"1,deposit,7,,-1,EUR,,,", "amount:"),
            (b"1,deposit,7,,1.234,EUR,,,", "amount:"),
            (b"1,deposit,7,,1.5,JPY,,,", "amount:"),
            (b"1,deposit,7,,10000000000000.01,EUR,,,", "amount:"),
            (b"1,deposit,7,,1,EURO,,,", "currency:"),
            (b"1,deposit,7,,1,EUR,DE,,", "country:"),
            (b"1,payment,7,7,1,EUR,,,", "counterparty:"),
            (b"1,payment,7,,1,EUR,,,", "counterparty:"),
            (b"1,payment,7,8,1,EUR,,mars,", "via:"),
            (b"1,enrol,7,,,EUR,Germany,,", "country:"),
            (b"1,payment,7,8,1,EUR,,", "the header has 9 fields"),
            (b"1,payment,7,8,1,EUR,,,\"open", "quote"),
            (b"1,payment,7,8,1,EUR,,,\xff", "not UTF-8"),
        ];
        for (line, reason) in table {
            let error = parse(line).err().unwrap_or_default();
            assert!(error.contains(reason), "{}: `{error}` does not name `{reason}`", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn a_reason_does_not_repeat_a_country_or_a_reference() {
        let canary = "CANARY";
        let country = parse(format!("1,enrol,7,,,EUR,{canary},,").as_bytes()).err().unwrap_or_default();
        let reference = parse(format!("1,deposit,7,,1,EUR,,,{}", canary.repeat(40)).as_bytes()).err().unwrap_or_default();
        assert!(!country.is_empty() && !country.contains(canary), "{country}");
        assert!(!reference.is_empty() && !reference.contains(canary), "{reference}");
    }

    #[test]
    fn a_payment_may_name_a_card_by_its_token_and_nothing_else_may() {
        let columns = Columns::from_header([HEADER, b",card"].concat().as_slice()).expect("the header");
        let token = "card_eu_abcdefghijklmnopabcdefghijklmnop";
        let parse = |line: String| columns.parse(line.as_bytes(), "", |_| true);
        let card = |instruction: Instruction| match instruction.action {
            Action::Payment { card, .. } => card.map(|card| card.to_string()),
            _ => None,
        };
        assert_eq!(parse(format!("1,payment,7,8,1,EUR,,,,{token}")).map(card), Ok(Some(token.to_owned())));
        assert_eq!(parse("1,payment,7,8,1,EUR,,,,".to_owned()).map(card), Ok(None));
        for line in [format!("1,deposit,7,,1,EUR,,,,{token}"), format!("1,transfer,7,8,1,EUR,,,,{token}")] {
            assert!(parse(line).err().unwrap_or_default().starts_with("card: a line of kind"));
        }
        let number = parse("1,payment,7,8,1,EUR,,,,4242424242424242".to_owned()).err().unwrap_or_default();
        assert!(number.starts_with("card:") && !number.contains("4242"), "{number}");
        assert!(Columns::from_header([HEADER, b",card,card"].concat().as_slice()).is_err());
    }

    #[test]
    fn a_header_may_be_in_any_order_and_must_be_whole() {
        let columns = Columns::from_header(b"reference,via,country,currency,amount,counterparty,user,kind,id,extra").expect("any order");
        assert!(columns.parse(b",,,EUR,1,,7,deposit,1,whatever", "", |_| true).is_ok());
        let missing = Columns::from_header(b"id,kind,user,counterparty,amount,country,via,reference").err().unwrap_or_default();
        assert!(missing.contains("`currency`"), "{missing}");
        let twice = Columns::from_header(b"id,id,kind,user,counterparty,amount,currency,country,via,reference").err().unwrap_or_default();
        assert!(twice.contains("`id` twice"), "{twice}");
    }

    #[test]
    fn request_ids_depend_on_namespace_and_id_and_on_nothing_else() {
        assert_ne!(request_id("", "1"), request_id("", "2"));
        assert_ne!(request_id("a", "bc"), request_id("ab", "c"));
        // Pinned: files submitted by an older version must keep their request ids.
        assert_eq!(request_id("", "1").to_string(), "98ce87e6-430a-8504-8ca5-49f5d73f97d5");
        assert_eq!(request_id("march", "7").to_string(), "f9e16169-9c3b-84dd-9dcc-a9e0f37000e4");
    }
}
