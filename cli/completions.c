/* SPDX-License-Identifier: Apache-2.0
 * Completions for bash, zsh and fish, from the tables. */
#include "options.h"

#include <string.h>

/* Text inside single quotes of a shell, and of zsh's _arguments, where [ ] : have a meaning. */
enum shell { BASH, ZSH, FISH };
static void quoted(FILE *out, enum shell shell, const char *text) {
    for (const char *s = text; *s != '\0'; s++) {
        if (*s == '\'') fputs(shell == FISH ? "\\'" : "'\\''", out);
        else if (shell == FISH && *s == '\\') fputs("\\\\", out);
        else if (shell == ZSH && strchr("[]:\\", *s) != NULL) fprintf(out, "\\%c", *s);
        else fputc(*s, out);
    }
}

static int takes(const struct command *command, size_t id) {
    return ((command->required | command->optional) >> id & 1) != 0 && option_rows[id].help != NULL;
}

static void words_of(FILE *out, enum choices choices) {
    for (size_t i = 0; choice_get(choices, i) != NULL; i++)
        fprintf(out, "%s%s", i == 0 ? "" : " ", choice_get(choices, i));
}

static void bash_options(FILE *out, const struct command *command) {
    for (size_t id = 0; id < OPTION_COUNT; id++) {
        if (!takes(command, id)) continue;
        if (option_rows[id].letter != 0) fprintf(out, " -%c", option_rows[id].letter);
        fprintf(out, " --%s", option_rows[id].name);
    }
}

void completions_bash(FILE *out) {
    fputs("# SPDX-License-Identifier: Apache-2.0\n# Made by breccia --generate bash.\n_breccia() {\n"
          "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command= options= i\n"
          "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
          "        [[ ${COMP_WORDS[i]} == -* ]] || { command=${COMP_WORDS[i]}; break; }\n    done\n"
          "    COMPREPLY=()\n    case $before in\n",
          out);
    for (size_t id = 0; id < OPTION_COUNT; id++) {
        const struct option_row *row = &option_rows[id];
        if (row->argument == NULL || row->help == NULL) continue;
        fputs("        ", out);
        if (row->letter != 0) fprintf(out, "-%c | ", row->letter);
        fprintf(out, "--%s) ", row->name);
        if (row->choices == PATHS) {
            fputs("compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$word\"); ", out);
        } else if (choice_get(row->choices, 0) != NULL) {
            fputs("mapfile -t COMPREPLY < <(compgen -W '", out);
            words_of(out, row->choices);
            fputs("' -- \"$word\"); ", out);
        }
        fputs("return ;;\n", out);
    }
    fputs("    esac\n    case $command in\n        '') options='", out);
    for (size_t i = 0; i < command_count; i++) fprintf(out, "%s ", command_rows[i].name);
    bash_options(out, &program_row);
    fputs("' ;;\n", out);
    for (size_t i = 0; i < command_count; i++) {
        fprintf(out, "        %s) options='", command_rows[i].name);
        bash_options(out, &command_rows[i]);
        fputs("' ;;\n", out);
    }
    fputs("    esac\n    if [[ $word == -* || -z $command ]]; then\n"
          "        mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$word\")\n    else\n"
          "        compopt -o filenames\n        mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n    fi\n}\n"
          "complete -F _breccia breccia\n",
          out);
}

static void zsh_options(FILE *out, const struct command *command, const char *indent) {
    for (size_t id = 0; id < OPTION_COUNT; id++) {
        const struct option_row *row = &option_rows[id];
        if (!takes(command, id)) continue;
        for (int letter = row->letter != 0; letter >= 0; letter--) {
            fprintf(out, " \\\n%s'", indent);
            if (id == OPTION_INCLUDE || id == OPTION_EXCLUDE) fputc('*', out);
            if (letter) fprintf(out, "-%c[", row->letter);
            else fprintf(out, "--%s[", row->name);
            quoted(out, ZSH, row->help);
            fputc(']', out);
            if (row->argument != NULL) {
                fprintf(out, ":%s:", row->argument);
                if (row->choices == PATHS) fputs("_files", out);
                else if (choice_get(row->choices, 0) != NULL)
                    fputc('(', out), words_of(out, row->choices), fputc(')', out);
            }
            fputc('\'', out);
        }
    }
}

void completions_zsh(FILE *out) {
    fputs("#compdef breccia\n# SPDX-License-Identifier: Apache-2.0\n# Made by breccia --generate zsh.\n"
          "_breccia() {\n    local context state state_descr line\n    typeset -A opt_args\n"
          "    _arguments -C '1:command:->command' '*::operand:->operand'",
          out);
    zsh_options(out, &program_row, "        ");
    fputs("\n    case $state in\n    command)\n        local -a commands\n        commands=(\n", out);
    for (size_t i = 0; i < command_count; i++) {
        fprintf(out, "            '%s:", command_rows[i].name);
        quoted(out, ZSH, command_rows[i].summary);
        fputs("'\n", out);
    }
    fputs("        )\n        _describe command commands ;;\n    operand)\n        case $line[1] in\n", out);
    for (size_t i = 0; i < command_count; i++) {
        fprintf(out, "        %s) _arguments '*:operand:%s'", command_rows[i].name,
                command_rows[i].operands[0] != '\0' ? "_files" : "");
        zsh_options(out, &command_rows[i], "            ");
        fputs(" ;;\n", out);
    }
    fputs("        esac ;;\n    esac\n}\n_breccia \"$@\"\n", out);
}

static void fish_options(FILE *out, const struct command *command) {
    for (size_t id = 0; id < OPTION_COUNT; id++) {
        const struct option_row *row = &option_rows[id];
        if (!takes(command, id)) continue;
        fprintf(out, "complete -c breccia -n '%s%s'",
                command == &program_row ? "__fish_use_subcommand" : "__fish_seen_subcommand_from ", command->name);
        if (row->letter != 0) fprintf(out, " -s %c", row->letter);
        fprintf(out, " -l %s", row->name);
        if (row->argument != NULL) fputs(row->choices == PATHS ? " -rF" : " -x", out);
        if (choice_get(row->choices, 0) != NULL) fputs(" -a '", out), words_of(out, row->choices), fputc('\'', out);
        fputs(" -d '", out);
        quoted(out, FISH, row->help);
        fputs("'\n", out);
    }
}

void completions_fish(FILE *out) {
    fputs("# SPDX-License-Identifier: Apache-2.0\n# Made by breccia --generate fish.\n", out);
    fish_options(out, &program_row);
    for (size_t i = 0; i < command_count; i++) {
        const struct command *command = &command_rows[i];
        fprintf(out, "complete -c breccia -f -n __fish_use_subcommand -a %s -d '", command->name);
        quoted(out, FISH, command->summary);
        fputs("'\n", out);
        if (command->operands[0] == '\0')
            fprintf(out, "complete -c breccia -f -n '__fish_seen_subcommand_from %s'\n", command->name);
        fish_options(out, command);
    }
}
