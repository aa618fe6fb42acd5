"""The recipes of docs/recipes.md: every one is a file that `check` takes without a warning."""

import os
import re

from harness import ROOT, Case, run_binary

ENVIRONMENT = {"TRIPSWITCH_PROJECT_ID": "proj_recipe", "TRIPSWITCH_API_KEY": "eb_pk_recipe", "TRIPSWITCH_INGEST_SECRET": "ab" * 32}
WANTED = ["Server errors", "200", "429", "LLM", "slow", "polls", "Shadow"]


def recipes():
    with open(os.path.join(ROOT, "docs", "recipes.md"), encoding="utf-8") as f:
        parts = re.split(r"^## (.+)$", f.read(), flags=re.M)[1:]
    return dict(zip(parts[::2], (re.findall(r"^```jsonc\n(.*?)^```$", text, re.M | re.S) for text in parts[1::2])))


class RecipesTest(Case):
    def test_every_recipe_is_a_valid_file_without_a_warning(self):
        for title, files in recipes().items():
            with self.subTest(title):
                self.assertEqual(len(files), 1, "one file each")
                path = os.path.join(self.temp_dir(), "recipe.json")
                with open(path, "w", encoding="utf-8") as f:
                    f.write(files[0])
                done = run_binary("check", "--config", path, env=ENVIRONMENT)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                self.assertNotRegex(done.stdout + done.stderr, r":\d+:\d+: ")

    def test_the_page_has_the_recipes_it_promises(self):
        for word in WANTED:
            self.assertTrue(any(word in title for title in recipes()), word)
