from datasette.app import Datasette

app = Datasette(immutables=["data/books.db"], plugins_dir="plugins", metadata={"title": "Books"}).app()
