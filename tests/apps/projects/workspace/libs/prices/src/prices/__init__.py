from slugify import slugify


def gross(net):
    return slugify(f"Gross {net * 119 // 100}")
