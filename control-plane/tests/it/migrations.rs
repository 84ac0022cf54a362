//! Both schemas are the same, migrations apply one by one, and a second start changes nothing.

use control_plane::store::Store;
use sqlx::Row;

use crate::base::Db;

async fn columns(store: &Store) -> Vec<(String, String)> {
    match store.db() {
        control_plane::store::Db::Sqlite { read, .. } => {
            let sql = "select m.name, p.name from sqlite_master m join pragma_table_info(m.name) p
                       where m.type = 'table' and m.name not like '\\_sqlx%' escape '\\'
                         and m.name not like 'sqlite%'
                       order by m.name, p.name";
            let rows = sqlx::query(sql).fetch_all(read).await.unwrap();
            rows.into_iter().map(|row| (row.get(0), row.get(1))).collect()
        }
        control_plane::store::Db::Postgres(pool) => {
            let sql = "select table_name::text, column_name::text from information_schema.columns
                       where table_schema = 'public' and table_name not like '\\_sqlx%'
                       order by table_name collate \"C\", column_name collate \"C\"";
            let rows = sqlx::query(sql).fetch_all(pool).await.unwrap();
            rows.into_iter().map(|row| (row.get(0), row.get(1))).collect()
        }
    }
}

#[tokio::test]
async fn both_databases_have_the_same_tables_and_columns() {
    let (sqlite, postgres) = (Db::sqlite(), Db::postgres().await);
    let ours = columns(&sqlite.store().await).await;
    assert!(ours.len() > 50, "{ours:?}");
    assert_eq!(ours, columns(&postgres.store().await).await);
}

#[tokio::test]
async fn a_second_start_finds_everything_done() {
    for db in [Db::sqlite(), Db::postgres().await] {
        let store = db.store().await;
        let before = columns(&store).await;
        store.migrate().await.unwrap();
        assert_eq!(columns(&store).await, before);
        store.close().await;
        assert_eq!(columns(&db.store().await).await, before);
    }
}

#[tokio::test]
async fn the_sets_have_the_same_names() {
    let names = |folder: &str| {
        let path = format!("{}/../migrations/{folder}", env!("CARGO_MANIFEST_DIR"));
        let mut names: Vec<_> =
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names("sqlite"), names("postgres"));
}

#[tokio::test]
async fn another_kind_of_database_is_refused_without_showing_the_url() {
    for url in ["mysql://root:hunter2@localhost/x", "postgres://u:hunter2@127.0.0.1:1/x", "no url"]
    {
        let error = format!("{:#}", Store::open(url).await.unwrap_err());
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_as_that() {
    let error = Store::open("postgres://u@127.0.0.1:1/x").await.unwrap_err();
    assert!(format!("{error:#}").contains("refused"), "{error:#}");
}

#[tokio::test]
async fn a_new_database_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let db = Db::sqlite();
    let store = db.store().await;
    store.seal_mark(b"written").await.unwrap();
    let path = std::path::PathBuf::from(db.url.strip_prefix("sqlite:").unwrap());
    let mut files = 0;
    for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        files += 1;
    }
    assert!(files >= 2, "the log beside it is looked at as well");
}
