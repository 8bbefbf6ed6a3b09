# SPDX-License-Identifier: Apache-2.0
# No name in a file may drive a terminal: everything below is printable, or escaped.
breccia inspect hostile.safetensors
breccia inspect hostile.safetensors --json
breccia show hostile.safetensors "$(printf 'two\nlines')" 
breccia show hostile.safetensors "$(printf 'no\033[31msuch')" 2>&1
breccia show "$(printf 'no\033]0;file\a')" x 2>&1
breccia "$(printf 'no\033]0;command\a')" 2>&1
breccia inspect "--$(printf 'no\033]0;option\a')" 2>&1
