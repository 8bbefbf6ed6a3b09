# SPDX-License-Identifier: Apache-2.0
breccia recipes
echo ----
breccia recipes --excludes
