variable "region" {
  description = "AWS region."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region must be one of AWS, such as eu-central-1."
  }
}

variable "admin_role_arns" {
  description = "IAM roles that administer the cluster: of people, and of what deploys the k8s overlay."
  type        = list(string)
}

variable "kubernetes_version" {
  description = "Kubernetes version, 1.29 or newer; one that EKS still supports without surcharge."
  type        = string
  default     = "1.34"
}

variable "public_access_cidrs" {
  description = "Who may reach the API server from outside the VPC; with none, its public endpoint is off."
  type        = list(string)
  default     = []
}
