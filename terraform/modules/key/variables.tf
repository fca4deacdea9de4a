variable "name" {
  description = "Alias of the key, without `alias/`."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9/-]{1,60}$", var.name))
    error_message = "name is a key's alias: lower-case letters, digits, '-' and '/', a letter first, 2 to 61 of them."
  }
}

variable "description" {
  description = "What the key encrypts."
  type        = string
}

variable "deletion_window_days" {
  description = "Days between the deletion of the key and its end; until then it can be had back."
  type        = number
  default     = 30

  validation {
    condition     = var.deletion_window_days >= 7 && var.deletion_window_days <= 30
    error_message = "deletion_window_days must be 7 to 30: KMS takes nothing else."
  }
}

variable "used_by_logs_of" {
  description = "Name of the CloudWatch log groups (`*` stands for anything) that are encrypted with it; null for none."
  type        = string
  default     = null
}

variable "used_by_volumes" {
  description = "Whether EC2 encrypts volumes with it."
  type        = bool
  default     = false
}
