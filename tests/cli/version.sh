# SPDX-License-Identifier: Apache-2.0
breccia --version
breccia --version --json
