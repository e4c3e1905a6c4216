from django.db import migrations, models


def first(apps, schema_editor):
    apps.get_model("notes", "Note").objects.create(text="The first")


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel("Note", [("id", models.BigAutoField(primary_key=True)), ("text", models.TextField())]),
        migrations.RunPython(first, migrations.RunPython.noop),
    ]
