import csv
import sqlite3

with sqlite3.connect("data/books.db") as database, open("books.csv", newline="") as rows:
    database.execute("CREATE TABLE books (title TEXT, year INTEGER)")
    database.executemany("INSERT INTO books VALUES (:title, :year)", csv.DictReader(rows))
