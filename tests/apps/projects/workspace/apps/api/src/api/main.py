from fastapi import FastAPI
from prices import gross

app = FastAPI()


@app.get("/prices/{net}")
def price(net: int):
    return {"gross": gross(net)}
