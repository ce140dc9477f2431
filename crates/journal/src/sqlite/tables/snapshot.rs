//! All rows, read in one transaction: SQLite's readers see the file as it was when they began.

use async_trait::async_trait;
use paymesh_ledger::Records;
use paymesh_types::{Sequence, ShardRef};
use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{
    super::File,
    PAYMENT_COLUMNS, read_books,
    rows::{self, Bad},
};
use crate::{Error, Row, Snapshot};

/// Rows read at once.
const PAGE_ROWS: usize = 4_096;

/// A connection of its own, in a transaction that ends with it.
#[derive(Debug)]
pub(super) struct SqliteSnapshot {
    shard: ShardRef,
    file: File,
    connection: SqliteConnection,
    cursor: Sequence,
    books: Records,
    /// Which of [`TABLES`] is read.
    table: usize,
    /// The key of the last row given; nothing at a table's beginning.
    after: Option<Vec<i64>>,
}

/// How a table is read.
struct Table {
    name: &'static str,
    columns: &'static str,
    key: &'static [&'static str],
    row: fn(&SqliteRow) -> Result<Row, Bad>,
}

const TABLES: [Table; 7] = [
    Table {
        name: "users",
        columns: "user_id, country",
        key: &["user_id"],
        row: |row| rows::user(row).map(|(user, country)| Row::User(user, country)),
    },
    Table {
        name: "claims",
        columns: "user_id, zone",
        key: &["user_id"],
        row: |row| rows::claim(row).map(|(user, zone)| Row::Claim(user, zone)),
    },
    Table {
        name: "wallets",
        columns: "user_id, currency, balance, held, closed, last_line, last_payment, exempted_payments, exempted_minor",
        key: &["user_id", "currency"],
        row: |row| rows::wallet(row).map(|(key, wallet)| Row::Wallet(key, wallet)),
    },
    Table {
        name: "methods",
        columns: "user_id, added, added_at, token",
        key: &["user_id", "added"],
        row: |row| rows::method(row).map(|(user, method)| Row::Method(user, method)),
    },
    Table {
        name: "lines",
        columns: "id, user_id, currency, kind, amount, balance, at, payment, counterparty, reference, previous",
        key: &["id"],
        row: |row| rows::line(row).map(Row::Line),
    },
    Table { name: "payments", columns: PAYMENT_COLUMNS, key: &["sequence"], row: |row| rows::payment(row).map(Row::Payment) },
    Table {
        name: "requests",
        columns: "sequence, request_id, at",
        key: &["sequence"],
        row: |row| {
            let (id, sequence) = rows::request(row)?;
            Ok(Row::Request(sequence, id, rows::timestamp(row, "at")?))
        },
    },
];

impl SqliteSnapshot {
    pub(super) async fn take(shard: &ShardRef, file: &File) -> Result<Self, Error> {
        let begun = async {
            let mut connection = SqliteConnection::connect_with(&file.readers.connect_options()).await?;
            sqlx::query("BEGIN").execute(&mut connection).await?;
            // The first read is the moment.
            let cursor: i64 = sqlx::query_scalar("SELECT sequence FROM cursor").fetch_one(&mut connection).await?;
            Ok((connection, rows::sequence(cursor)))
        };
        let (mut connection, cursor) = begun.await.map_err(|error: sqlx::Error| file.failed(shard, error))?;
        let books = read_books(&mut connection).await.map_err(|error| error.of(shard, file))?;
        Ok(Self { shard: shard.clone(), file: file.clone(), connection, cursor, books, table: 0, after: None })
    }

    async fn page(&mut self, table: &Table) -> Result<Vec<SqliteRow>, sqlx::Error> {
        let Table { name, columns, key, .. } = table;
        let order = key.join(", ");
        let beyond = match &self.after {
            Some(_) => format!("WHERE ({order}) > ({})", vec!["?"; key.len()].join(", ")),
            None => String::new(),
        };
        // Safe: the text is made of constants and question marks.
        let sql = AssertSqlSafe(format!("SELECT {columns} FROM {name} {beyond} ORDER BY {order} LIMIT {PAGE_ROWS}"));
        let query = self.after.iter().flatten().fold(sqlx::query(sql), |query, part| query.bind(*part));
        let page = query.fetch_all(&mut self.connection).await?;
        if let Some(last) = page.last() {
            self.after = Some(key.iter().map(|column| last.try_get(*column)).collect::<Result<_, _>>()?);
        }
        Ok(page)
    }
}

#[async_trait]
impl Snapshot for SqliteSnapshot {
    fn cursor(&self) -> Sequence {
        self.cursor
    }

    fn books(&self) -> &Records {
        &self.books
    }

    async fn next(&mut self) -> Result<Vec<Row>, Error> {
        while let Some(table) = TABLES.get(self.table) {
            let page = self.page(table).await.map_err(|error| self.file.failed(&self.shard, error))?;
            if page.len() < PAGE_ROWS {
                (self.table, self.after) = (self.table + 1, None);
            }
            if !page.is_empty() {
                let rows = page.iter().map(|row| (table.row)(row));
                return rows.map(|row| row.map_err(|bad| bad.of(&self.shard, &self.file))).collect();
            }
        }
        Ok(Vec::new())
    }
}
